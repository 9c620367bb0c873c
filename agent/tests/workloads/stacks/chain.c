// Five functions below main, of differing frames; the innermost burns a CPU. It returns often, so that samples hit prologues and
// epilogues too.
#include <stdint.h>
#include <string.h>

#define LINK __attribute__((noipa)) static

static volatile uint64_t sink;

LINK void leaf(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

LINK void fourth(int turns)
{
	leaf(turns);
	sink++;
}

LINK void third(int turns)
{
	volatile char room[300];

	room[turns & 255] = 1;
	fourth(turns);
	sink += room[turns & 255];
}

// Many values live across the call: in registers that it has to save.
LINK void second(int turns, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
	third(turns);
	sink += a ^ b;
	third(turns);
	sink += a * b + c * d + turns;
}

LINK void first(int turns)
{
	second(turns, sink, sink, sink, sink);
	sink++;
}

int main(void)
{
	for (;;)
		first(2000);
}
