// Two threads with names and functions of their own; says their thread ids when they have begun.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void first_work(void)
{
	for (;;)
		sink++;
}

__attribute__((noinline)) static void second_work(void)
{
	for (;;)
		sink--;
}

static void *second(void *unused)
{
	pthread_setname_np(pthread_self(), "second-thread");
	second_work();
	return unused;
}

int main(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, second, NULL);
	pthread_setname_np(pthread_self(), "first-thread");
	first_work();
}
