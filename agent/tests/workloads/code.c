// A library for run_mapped.c: code that needs nothing but its own bytes.
#include <stdint.h>

__attribute__((noinline)) void code_in_library(volatile uint64_t *sink)
{
	for (;;)
		++*sink;
}
