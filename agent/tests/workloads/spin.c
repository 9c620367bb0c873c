// Burns one CPU in spin_here until it is killed; says when it has begun.
#include <stdint.h>
#include <stdio.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void spin_here(void)
{
	for (;;)
		sink++;
}

int main(void)
{
	puts("ready");
	fflush(stdout);
	spin_here();
}
