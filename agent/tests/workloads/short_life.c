// Lives for 20 ms of its own CPU time, nearly all of it in burn_briefly.
#include <stdint.h>
#include <time.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void burn_briefly(void)
{
	for (int i = 0; i < 100000; i++)
		sink += (uint64_t)i * 7;
}

int main(void)
{
	struct timespec now;

	do {
		burn_briefly();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	} while (now.tv_sec == 0 && now.tv_nsec < 20000000);
}
