// Waits of one kind each, over and over, until it is killed: ./locks MODE. Says "ready". The thread called "waiter" waits in
// wait_for_it(), and does nothing else there; another lets it wait for milliseconds.
#include <atomic>
#include <barrier>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <string>
#include <thread>
#include <sys/prctl.h>

static std::string mode;
static std::mutex mutex;
static std::shared_mutex shared_mutex;
static std::condition_variable condition;
static bool said;
static std::counting_semaphore<5> semaphore{0};
static std::barrier<> start{2}, together{2};
static std::shared_ptr<std::latch> latch;
static std::shared_ptr<std::promise<int>> promise;
static std::atomic<int> value;

static void brief()
{
	std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

// The wait.
__attribute__((noipa)) void wait_for_it(int turn)
{
	if (mode == "mutex") {
		mutex.lock();
		mutex.unlock();
	} else if (mode == "reader") {
		shared_mutex.lock_shared();
		shared_mutex.unlock_shared();
	} else if (mode == "condition") {
		std::unique_lock lock(mutex);
		condition.wait(lock, [] { return said; });
		said = false;
	} else if (mode == "semaphore") {
		semaphore.acquire();
	} else if (mode == "barrier") {
		together.arrive_and_wait();
	} else if (mode == "latch") {
		latch->wait();
	} else if (mode == "future") {
		promise->get_future().wait();
	} else if (mode == "atomic") {
		value.wait(turn);
	} else if (mode == "join") {
		std::thread(brief).join();
	}
	asm volatile("" ::: "memory");
}

static void waiter()
{
	prctl(PR_SET_NAME, "waiter");
	for (int turn = 0;; turn++) {
		std::this_thread::sleep_for(std::chrono::microseconds(500));
		latch = std::make_shared<std::latch>(1);
		promise = std::make_shared<std::promise<int>>();
		start.arrive_and_wait();
		std::this_thread::sleep_for(std::chrono::milliseconds(1));
		wait_for_it(turn);
	}
}

static void let_it_wait()
{
	start.arrive_and_wait();
	auto this_latch = latch;
	auto this_promise = promise;
	if (mode == "mutex") {
		std::unique_lock lock(mutex);
		brief();
		return;
	}
	if (mode == "reader") {
		std::unique_lock lock(shared_mutex);
		brief();
		return;
	}
	brief();
	if (mode == "condition") {
		std::unique_lock lock(mutex);
		said = true;
		lock.unlock();
		condition.notify_one();
	} else if (mode == "semaphore") {
		semaphore.release();
	} else if (mode == "barrier") {
		together.arrive_and_wait();
	} else if (mode == "latch") {
		this_latch->count_down();
	} else if (mode == "future") {
		this_promise->set_value(1);
	} else if (mode == "atomic") {
		value++;
		value.notify_one();
	}
}

int main(int, char **words)
{
	mode = words[1];
	std::puts("ready");
	std::fflush(stdout);
	std::thread(waiter).detach();
	for (;;)
		let_it_wait();
}
