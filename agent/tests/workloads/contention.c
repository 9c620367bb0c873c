// Waits for others of which a test knows the truth: ./contention MODE. Says "ready", begins when SIGUSR1 comes, and says what it did.
//   held    200 times one thread holds a mutex for 10 ms, for which another waits; for how many nanoseconds that waited
//   others  threads wait at conditions, barriers and semaphores, with values that mutexes have too
//   timeout 50 times a thread waits 5 ms for a mutex that it does not get
//   file    for two seconds three threads write to one file, of which the kernel lets one at a time
//   pipe    100 times one thread wakes another by a pipe; for how many nanoseconds that waited
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LINK __attribute__((noipa))

static volatile uint64_t sink;
static volatile int waiter_tid;
static uint64_t waited;
static int there[2], back[2];

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

LINK void nap(long milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	nanosleep(&time, NULL);
	sink++;
}

// Until the waiter sleeps in the system call: then it has begun to wait, however busy the machine is.
LINK void until_asleep_in(int call)
{
	char path[64], text[32];
	snprintf(path, sizeof path, "/proc/self/task/%d/syscall", waiter_tid);
	for (;;) {
		int file = open(path, O_RDONLY);
		ssize_t length = read(file, text, sizeof text - 1);
		close(file);
		text[length > 0 ? length : 0] = 0;
		if (text[0] >= '0' && text[0] <= '9' && atoi(text) == call)
			return;
		nap(1);
	}
}

LINK void tell(int to)
{
	char byte = 1;
	if (write(to, &byte, 1) != 1)
		exit(1);
	sink++;
}

LINK void hear(int from)
{
	char byte;
	if (read(from, &byte, 1) != 1)
		exit(1);
	sink++;
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

LINK void want_the_lock(void)
{
	pthread_mutex_lock(&mutex);
	sink++;
}

LINK void let_go(void)
{
	pthread_mutex_unlock(&mutex);
	sink++;
}

static void *want(void *rounds)
{
	waiter_tid = syscall(SYS_gettid);
	for (intptr_t i = 0; i < (intptr_t)rounds; i++) {
		hear(there[0]);
		uint64_t began = now();
		want_the_lock();
		waited += now() - began;
		let_go();
		tell(back[1]);
	}
	return NULL;
}

LINK void hold(void)
{
	pthread_mutex_lock(&mutex);
	tell(there[1]);
	until_asleep_in(SYS_futex);
	nap(10);
	let_go();
	hear(back[0]);
}

static void *listen_to(void *rounds)
{
	waiter_tid = syscall(SYS_gettid);
	for (intptr_t i = 0; i < (intptr_t)rounds; i++) {
		uint64_t began = now();
		hear(there[0]);
		waited += now() - began;
		tell(back[1]);
	}
	return NULL;
}

LINK void call_it(void)
{
	until_asleep_in(SYS_read);
	nap(10);
	tell(there[1]);
	hear(back[0]);
}

static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static sem_t semaphore;
static int turn;

LINK void at_condition(int round)
{
	pthread_mutex_lock(&mutex);
	while (turn <= round)
		pthread_cond_wait(&condition, &mutex);
	pthread_mutex_unlock(&mutex);
	sink++;
}

LINK void at_barrier(void)
{
	pthread_barrier_wait(&barrier);
	sink++;
}

LINK void at_semaphore(void)
{
	sem_wait(&semaphore);
	sink++;
}

static void *visit(void *rounds)
{
	for (intptr_t i = 0; i < (intptr_t)rounds; i++) {
		at_condition(i);
		at_barrier();
		at_semaphore();
	}
	return NULL;
}

LINK void serve(int round)
{
	nap(5);
	pthread_mutex_lock(&mutex);
	turn = round + 1;
	pthread_mutex_unlock(&mutex);
	pthread_cond_broadcast(&condition);
	nap(5);
	at_barrier();
	nap(5);
	sem_post(&semaphore);
}

LINK void want_in_vain(void)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += 5000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_timedlock(&mutex, &until);
	sink++;
}

static void *try(void *rounds)
{
	for (intptr_t i = 0; i < (intptr_t)rounds; i++)
		want_in_vain();
	return NULL;
}

static int file;
static char block[4 << 20];
static uint64_t ends;

LINK void write_block(void)
{
	if (pwrite(file, block, sizeof block, 0) < 0)
		exit(1);
	sink++;
}

static void *write_blocks(void *unused)
{
	while (now() < ends)
		write_block();
	return unused;
}

static void write_at_once(void)
{
	pthread_t threads[3];
	char path[] = "/tmp/contention-XXXXXX";
	file = mkstemp(path);
	if (file < 0 || unlink(path))
		exit(1);
	ends = now() + 2000000000ULL;
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, write_blocks, NULL);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
}

static void with(void *(*function)(void *), intptr_t rounds, void (*round)(void))
{
	pthread_t thread;
	pthread_create(&thread, NULL, function, (void *)rounds);
	while (!waiter_tid)
		nap(1);
	for (intptr_t i = 0; i < rounds; i++)
		round();
	pthread_join(thread, NULL);
	printf("%llu\n", (unsigned long long)waited);
}

int main(int count, char **words)
{
	const char *mode = count > 1 ? words[1] : "";
	sigset_t begin;
	int signal;
	sigemptyset(&begin);
	sigaddset(&begin, SIGUSR1);
	sigprocmask(SIG_BLOCK, &begin, NULL);
	if (pipe(there) || pipe(back))
		return 1;
	puts("ready");
	fflush(stdout);
	sigwait(&begin, &signal);
	if (!strcmp(mode, "held")) {
		with(want, 200, hold);
	} else if (!strcmp(mode, "pipe")) {
		with(listen_to, 100, call_it);
	} else if (!strcmp(mode, "timeout")) {
		pthread_t thread;
		pthread_mutex_lock(&mutex);
		pthread_create(&thread, NULL, try, (void *)50);
		pthread_join(thread, NULL);
		puts("50");
	} else if (!strcmp(mode, "file")) {
		write_at_once();
		puts("3");
	} else if (!strcmp(mode, "others")) {
		pthread_t thread;
		pthread_barrier_init(&barrier, NULL, 2);
		sem_init(&semaphore, 0, 0);
		pthread_create(&thread, NULL, visit, (void *)50);
		for (int i = 0; i < 50; i++)
			serve(i);
		pthread_join(thread, NULL);
		puts("50");
	}
	fflush(stdout);
	return 0;
}
