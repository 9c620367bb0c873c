// A function whose frame takes more than half a megabyte: farther than the offsets of usual unwind rules reach, and than a copied
// slice of the stack.
#include <stdint.h>

#define LINK __attribute__((noipa)) static

static volatile uint64_t sink;

LINK void leaf(volatile char *room)
{
	for (int i = 0; i < 1000; i++)
		sink += room[i];
}

LINK void wide(void)
{
	volatile char room[600000];

	for (unsigned turn = 0;; turn++) {
		room[turn % sizeof(room)] = 1;
		leaf(room + turn % 1000);
	}
}

int main(void)
{
	wide();
	sink++;
}
