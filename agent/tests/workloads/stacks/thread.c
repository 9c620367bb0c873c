// A chain of calls in a second thread; the first one waits for it.
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define LINK __attribute__((noipa)) static

static volatile uint64_t sink;

LINK void leaf(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

LINK void middle(int turns)
{
	leaf(turns);
	sink++;
}

LINK void *thread_main(void *unused)
{
	for (;;)
		middle(2000);
	return unused;
}

int main(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, thread_main, NULL);
	pthread_join(thread, NULL);
}
