// Loaded by dlopen.c.
#include <stdint.h>

__attribute__((noipa)) static void leaf_in_library(volatile uint64_t *sink)
{
	for (int i = 0; i < 2000; i++)
		++*sink;
}

void work_in_library(volatile uint64_t *sink)
{
	leaf_in_library(sink);
	++*sink;
}
