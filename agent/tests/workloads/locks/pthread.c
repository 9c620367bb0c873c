// Waits of one kind each, over and over, until it is killed: ./pthread MODE. Says "ready". One thread waits in wait_for_it(), and
// does nothing else there; it is called "waiter". Another lets it wait for milliseconds. For glibc and musl.
#define _GNU_SOURCE
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define LINK __attribute__((noipa))

static volatile unsigned long sink;
static const char *mode;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier, start;
static sem_t semaphore;
static pthread_once_t once;
static int said;

static int is(const char *name)
{
	return !strcmp(mode, name);
}

LINK void nap(long microseconds)
{
	struct timespec time = { 0, microseconds * 1000 };
	nanosleep(&time, NULL);
	sink++;
}

static struct timespec in_ten_minutes(void)
{
	struct timespec time;
	clock_gettime(CLOCK_REALTIME, &time);
	time.tv_sec += 600;
	return time;
}

static void *brief(void *unused)
{
	nap(5000);
	return unused;
}

static void initialise(void)
{
	nap(5000);
}

static pthread_t thread;

// The wait.
LINK void wait_for_it(void)
{
	struct timespec end = in_ten_minutes();
	if (is("mutex") || is("recursive") || is("robust") || is("pi"))
		pthread_mutex_lock(&mutex);
	else if (is("timed"))
		pthread_mutex_timedlock(&mutex, &end);
	else if (is("reader"))
		pthread_rwlock_rdlock(&rwlock);
	else if (is("writer"))
		pthread_rwlock_wrlock(&rwlock);
	else if (is("condition"))
		pthread_cond_wait(&condition, &mutex);
	else if (is("timed-condition"))
		pthread_cond_timedwait(&condition, &mutex, &end);
	else if (is("semaphore"))
		sem_wait(&semaphore);
	else if (is("timed-semaphore"))
		sem_timedwait(&semaphore, &end);
	else if (is("barrier"))
		pthread_barrier_wait(&barrier);
	else if (is("join"))
		pthread_join(thread, NULL);
	else if (is("once"))
		pthread_once(&once, initialise);
	else if (is("stdio"))
		flockfile(stdout);
	sink++;
}

static int is_mutex(void)
{
	return is("mutex") || is("recursive") || is("robust") || is("pi") || is("timed");
}

static int is_condition(void)
{
	return is("condition") || is("timed-condition");
}

// A turn of the thread that waits. The other one comes first to what it is to hold.
static void wait_once(void)
{
	nap(500);
	once = (pthread_once_t)PTHREAD_ONCE_INIT;
	pthread_barrier_wait(&start);
	if (is_condition()) {
		pthread_mutex_lock(&mutex);
		while (!said)
			wait_for_it();
		said = 0;
		pthread_mutex_unlock(&mutex);
		return;
	}
	if (is("join"))
		pthread_create(&thread, NULL, brief, NULL);
	else
		nap(1000);
	wait_for_it();
	if (is_mutex())
		pthread_mutex_unlock(&mutex);
	else if (is("reader") || is("writer"))
		pthread_rwlock_unlock(&rwlock);
	else if (is("stdio"))
		funlockfile(stdout);
}

// A turn of the thread that lets it wait.
static void let_it_wait(int turn)
{
	if (turn % 4 == 0) {
		// The number of its round, which a barrier waits with, is a small one, and 2 among them.
		pthread_barrier_destroy(&barrier);
		pthread_barrier_init(&barrier, NULL, 2);
	}
	pthread_barrier_wait(&start);
	if (is_mutex()) {
		pthread_mutex_lock(&mutex);
		nap(5000);
		pthread_mutex_unlock(&mutex);
	} else if (is("reader") || is("writer")) {
		is("reader") ? pthread_rwlock_wrlock(&rwlock) : pthread_rwlock_rdlock(&rwlock);
		nap(5000);
		pthread_rwlock_unlock(&rwlock);
	} else if (is_condition()) {
		nap(5000);
		pthread_mutex_lock(&mutex);
		said = 1;
		pthread_mutex_unlock(&mutex);
		pthread_cond_signal(&condition);
	} else if (is("semaphore") || is("timed-semaphore")) {
		nap(5000);
		sem_post(&semaphore);
	} else if (is("barrier")) {
		nap(5000);
		pthread_barrier_wait(&barrier);
	} else if (is("once")) {
		pthread_once(&once, initialise);
	} else if (is("stdio")) {
		flockfile(stdout);
		nap(5000);
		funlockfile(stdout);
	}
}

static void *waiter(void *unused)
{
	prctl(PR_SET_NAME, "waiter");
	for (;;)
		wait_once();
	return unused;
}

int main(int count, char **words)
{
	pthread_mutexattr_t attributes;
	mode = count > 1 ? words[1] : "";
	pthread_mutexattr_init(&attributes);
	if (is("recursive"))
		pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
	if (is("robust"))
		pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
	if (is("pi") && pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT))
		return 1;
	pthread_mutex_init(&mutex, &attributes);
	pthread_barrier_init(&barrier, NULL, 2);
	pthread_barrier_init(&start, NULL, 2);
	sem_init(&semaphore, 0, 0);
	puts("ready");
	fflush(stdout);
	pthread_create(&(pthread_t){ 0 }, NULL, waiter, NULL);
	for (int turn = 0;; turn++)
		let_it_wait(turn);
}
