// Waits of which a test knows the truth: ./waits MODE. Says "ready", begins when SIGUSR1 comes, and says what it did.
//   naps       20 sleeps of 200 ms, and how many nanoseconds they took
//   longshort  20 sleeps of 30 ms, and between them 500 of 1 ms; how many of these took 10 ms or more, by its own clock, and
//              voluntary switches in all of them
//   pingpong   two threads hand a byte to and fro for two seconds; how often
//   shares     hands a byte to a child and back for two seconds, and waits for it in one of two functions, by chance in seven of ten
//              cases in the first; voluntary switches in each
//   chatty     the same for two seconds, with one wait of a second in between
//   deadlock   two threads take two locks in opposite order; then it waits to be killed
//   mixed      three threads compute, yield and sleep for two seconds; nanoseconds of wall time and of CPU time over all threads
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define LINK __attribute__((noipa))

static volatile uint64_t sink;

static uint64_t now(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

LINK void nap(long milliseconds)
{
	struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
	nanosleep(&time, NULL);
	sink++;
}

LINK void long_nap(void)
{
	nap(30);
	sink++;
}

LINK void short_nap(void)
{
	nap(1);
	sink++;
}

LINK void work(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

static int there[2], back[2];
static uint64_t ends;

LINK int hand_over(int to)
{
	char byte = 1;
	int done = write(to, &byte, 1) == 1;
	sink++;
	return done;
}

LINK int wait_for(int from)
{
	char byte;
	int done = read(from, &byte, 1) == 1;
	sink++;
	return done;
}

static void *pong(void *unused)
{
	while (wait_for(there[0]) && hand_over(back[1]))
		;
	return unused;
}

LINK void long_wait(void)
{
	nap(1000);
	sink++;
}

static uint64_t ping(int with_a_long_wait)
{
	pthread_t thread;
	uint64_t rounds = 0;
	if (pipe(there) || pipe(back))
		exit(1);
	pthread_create(&thread, NULL, pong, NULL);
	for (; now(CLOCK_MONOTONIC) < ends; rounds++) {
		if (with_a_long_wait && rounds == 5000)
			long_wait();
		if (!hand_over(there[1]) || !wait_for(back[0]))
			exit(1);
	}
	close(there[1]);
	pthread_join(thread, NULL);
	return rounds;
}

LINK int wait_in_a(void)
{
	int done = wait_for(back[0]);
	sink++;
	return done;
}

LINK int wait_in_b(void)
{
	int done = wait_for(back[0]);
	sink++;
	return done;
}

static uint64_t switches(void)
{
	struct rusage usage;
	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

static void stay_on(int cpu)
{
	cpu_set_t cpus;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	// Where there is only one, that is where both are.
	sched_setaffinity(0, sizeof cpus, &cpus);
}

static void share(uint64_t *in)
{
	uint64_t random = 0x9e3779b97f4a7c15, before;
	if (pipe(there) || pipe(back))
		exit(1);
	// On the same CPU the other would often run before this one waits.
	stay_on(0);
	if (!fork()) {
		stay_on(1);
		close(there[1]);
		pong(NULL);
		_exit(0);
	}
	while (now(CLOCK_MONOTONIC) < ends) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		int which = random % 10 >= 7;
		if (!hand_over(there[1]))
			exit(1);
		before = switches();
		if (!(which ? wait_in_b() : wait_in_a()))
			exit(1);
		in[which] += switches() - before;
	}
}

static pthread_mutex_t left = PTHREAD_MUTEX_INITIALIZER, right = PTHREAD_MUTEX_INITIALIZER;

LINK void take_left_then_right(void)
{
	pthread_mutex_lock(&left);
	nap(50);
	pthread_mutex_lock(&right);
	sink++;
}

LINK void take_right_then_left(void)
{
	pthread_mutex_lock(&right);
	nap(50);
	pthread_mutex_lock(&left);
	sink++;
}

static void *one_side(void *unused)
{
	take_left_then_right();
	return unused;
}

static void *other_side(void *unused)
{
	take_right_then_left();
	return unused;
}

static void *mix(void *number)
{
	while (now(CLOCK_MONOTONIC) < ends) {
		work(200000 * (1 + (int)(intptr_t)number));
		if ((intptr_t)number == 1)
			nap(3);
		else if ((intptr_t)number == 2)
			nap(40);
	}
	return NULL;
}

static void start(void *(*function)(void *), int count, int join)
{
	pthread_t threads[8];
	for (intptr_t i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, function, (void *)i);
	for (int i = 0; join && i < count; i++)
		pthread_join(threads[i], NULL);
}

int main(int count, char **words)
{
	const char *mode = count > 1 ? words[1] : "";
	sigset_t begin;
	int signal;
	sigemptyset(&begin);
	sigaddset(&begin, SIGUSR1);
	sigprocmask(SIG_BLOCK, &begin, NULL);
	puts("ready");
	fflush(stdout);
	if (strcmp(mode, "deadlock"))
		sigwait(&begin, &signal);
	uint64_t began = now(CLOCK_MONOTONIC);
	ends = began + 2000000000ULL;
	if (!strcmp(mode, "naps")) {
		for (int i = 0; i < 20; i++)
			nap(200);
		printf("%llu\n", (unsigned long long)(now(CLOCK_MONOTONIC) - began));
	} else if (!strcmp(mode, "longshort")) {
		uint64_t late = 0, in_short = 0, switched;
		for (int i = 0; i < 520; i++) {
			if (i % 26 == 25) {
				long_nap();
				continue;
			}
			switched = switches();
			uint64_t before = now(CLOCK_MONOTONIC);
			short_nap();
			late += now(CLOCK_MONOTONIC) - before >= 10000000;
			in_short += switches() - switched;
		}
		printf("%llu %llu\n", (unsigned long long)late, (unsigned long long)in_short);
	} else if (!strcmp(mode, "pingpong") || !strcmp(mode, "chatty")) {
		printf("%llu\n", (unsigned long long)ping(!strcmp(mode, "chatty")));
	} else if (!strcmp(mode, "shares")) {
		uint64_t in[2] = { 0 };
		share(in);
		printf("%llu %llu\n", (unsigned long long)in[0], (unsigned long long)in[1]);
	} else if (!strcmp(mode, "deadlock")) {
		start(one_side, 1, 0);
		start(other_side, 1, 0);
		for (;;)
			pause();
	} else if (!strcmp(mode, "mixed")) {
		struct rusage usage;
		start(mix, 3, 1);
		uint64_t wall = now(CLOCK_MONOTONIC) - began;
		getrusage(RUSAGE_SELF, &usage);
		uint64_t cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL +
			       (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000ULL;
		printf("%llu %llu\n", (unsigned long long)(wall * 4), (unsigned long long)cpu);
	}
	fflush(stdout);
	return 0;
}
