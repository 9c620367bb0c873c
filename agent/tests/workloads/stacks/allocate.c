// Spends its time in malloc and free.
#include <stdint.h>
#include <stdlib.h>

#define LINK __attribute__((noipa)) static

LINK void allocate(void **blocks, unsigned turn)
{
	void *fresh = malloc(turn * 37 % 5000 + 1);

	*(volatile char *)fresh = 1;
	free(blocks[turn & 63]);
	blocks[turn & 63] = fresh;
}

LINK void caller(void **blocks)
{
	for (unsigned turn = 0; turn < 100000; turn++)
		allocate(blocks, turn);
}

int main(void)
{
	static void *blocks[64];

	for (;;)
		caller(blocks);
}
