// Gives its CPU away all the time.
#include <sched.h>
#include <stdint.h>

static volatile uint64_t sink;

__attribute__((noipa)) static void yielding(void)
{
	sched_yield();
	sink++;
}

int main(void)
{
	for (;;)
		yielding();
}
