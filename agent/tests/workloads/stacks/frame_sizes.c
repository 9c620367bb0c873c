// Functions whose frames' sizes are known at run time only.
#include <alloca.h>
#include <stdint.h>
#include <string.h>

#define LINK __attribute__((noipa)) static

static volatile uint64_t sink;

LINK void leaf(volatile char *room, int turns)
{
	for (int i = 0; i < turns; i++)
		sink += room[0];
}

LINK void inner(unsigned size)
{
	volatile char *room = alloca(size);

	room[0] = 1;
	leaf(room, 1000);
	sink += room[0];
}

LINK void outer(unsigned size)
{
	volatile char *room = alloca(size / 2 + 8);

	room[0] = 1;
	inner(size);
	sink += room[0];
}

int main(void)
{
	for (unsigned size = 16;; size = size * 3 % 3001 + 16)
		outer(size);
}
