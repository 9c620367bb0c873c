// Threads that come by `watched` a known number of times each, through a chain of calls: ./watched THREADS CALLS. They begin when
// SIGUSR1 comes.
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define LINK __attribute__((noipa))

static volatile uint64_t sink;
static int calls;

LINK void watched(int number)
{
	sink += number;
}

LINK void middle(int number)
{
	watched(number);
	sink++;
}

LINK void outer(void)
{
	for (int i = 0; i < calls; i++) {
		middle(i);
		for (int turn = 0; turn < 20000; turn++)
			sink++;
	}
}

static void *thread(void *unused)
{
	outer();
	return unused;
}

int main(int count, char **words)
{
	pthread_t threads[64];
	int wanted = count > 2 ? atoi(words[1]) : 0;
	calls = count > 2 ? atoi(words[2]) : 0;
	if (wanted < 1 || wanted > 64)
		return 1;
	sigset_t begin;
	int signal;
	sigemptyset(&begin);
	sigaddset(&begin, SIGUSR1);
	sigprocmask(SIG_BLOCK, &begin, NULL);
	puts("ready");
	fflush(stdout);
	sigwait(&begin, &signal);
	for (int i = 0; i < wanted; i++)
		pthread_create(&threads[i], NULL, thread, NULL);
	for (int i = 0; i < wanted; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
