// Four threads that want the same lock all the time. Whoever has it gives its CPU away now and then, so that others come, find
// it taken, and have to wait in the kernel.
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#define LINK __attribute__((noipa)) static

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile uint64_t sink;

LINK void contend(void)
{
	pthread_mutex_lock(&lock);
	if (sink++ % 4 == 0)
		sched_yield();
	pthread_mutex_unlock(&lock);
	sink++;
}

LINK void *thread_main(void *unused)
{
	for (;;)
		contend();
	return unused;
}

int main(void)
{
	pthread_t threads[4];

	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, thread_main, NULL);
	pthread_join(threads[0], NULL);
}
