// Burns 20 ms of CPU time with the stack pointer less than 128 bytes above the end of the stack's memory, then ends: the red zone below
// it is not there.
#include <alloca.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE 4096
#define STACK (8 * PAGE)

static volatile uint64_t sink;
static char *bottom;

__attribute__((noipa)) static void burn_at_the_edge(void)
{
	// By count: a call would need room below.
	for (int i = 0; i < 20000000; i++)
		sink++;
}

__attribute__((noipa)) static void step_to_the_edge(void)
{
	char *here = alloca(16);
	volatile char *room = alloca(here - bottom - 128);

	*room = 1;
	burn_at_the_edge();
	sink += *room;
}

static void *thread_main(void *unused)
{
	step_to_the_edge();
	return unused;
}

int main(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	// With all its pages: a copy of the stack ends where one was never touched.
	bottom = mmap(NULL, PAGE + STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	bottom += PAGE;
	munmap(bottom - PAGE, PAGE);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, bottom, STACK);
	pthread_create(&thread, &attributes, thread_main, NULL);
	return pthread_join(thread, NULL);
}
