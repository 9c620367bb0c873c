// Burns one CPU in before_exec for SECONDS of its CPU time, then becomes PROGRAM; says when it has begun.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void before_exec(void)
{
	for (int i = 0; i < 1000000; i++)
		sink++;
}

int main(int count, char **arguments)
{
	struct timespec now;

	if (count != 3)
		return 2;
	puts("ready");
	fflush(stdout);
	do {
		before_exec();
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	} while ((double)now.tv_sec + (double)now.tv_nsec / 1e9 < atof(arguments[2]));
	// Nobody listens any more to what PROGRAM says.
	if (freopen("/dev/null", "w", stdout) == NULL)
		return 1;
	execl(arguments[1], arguments[1], (char *)NULL);
	return 1;
}
