// Calls one after the other of the functions that a generated file has, which call each other in pairs and then burn:
// burn, f<number>, g<number>, main.
#include <stddef.h>
#include <stdint.h>

extern void (*const spread_table[])(void (*)(void));
extern const size_t spread_count;
static volatile uint64_t sink;

__attribute__((noinline)) static void burn(void)
{
	for (int i = 0; i < 30000; i++)
		sink += (uint64_t)i * 7;
}

int main(void)
{
	// A prime, so that every function has its turn, and neighbours far from each other.
	for (size_t i = 0;; i = (i + 7919) % spread_count)
		spread_table[i](burn);
}
