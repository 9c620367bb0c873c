// Burns 20 ms of CPU time below 24 frames of 2 KiB each, then ends: more stack than one slice of it holds.
#include <stdint.h>
#include <time.h>

static volatile uint64_t sink;

static uint64_t cpu_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

__attribute__((noipa)) static void burn_deep(void)
{
	while (cpu_time() < 20000000)
		for (int i = 0; i < 20000; i++)
			sink++;
}

__attribute__((noipa)) static void descend(int more)
{
	volatile char room[2000];

	room[more] = 1;
	if (more)
		descend(more - 1);
	else
		burn_deep();
	sink += room[more];
}

int main(void)
{
	descend(23);
}
