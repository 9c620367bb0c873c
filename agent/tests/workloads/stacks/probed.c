// Functions that a test puts uretprobes on: `probed` burns a CPU below `caller`, and `nested` calls itself three times before it does.
#include <stdint.h>

#define LINK __attribute__((noipa))

static volatile uint64_t sink;

LINK void leaf(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

LINK void probed(int turns)
{
	leaf(turns);
	sink++;
}

LINK void nested(int turns, int more)
{
	if (more)
		nested(turns, more - 1);
	else
		leaf(turns);
	sink++;
}

LINK void caller(int turns)
{
	probed(turns);
	sink++;
	nested(turns, 3);
	sink++;
}

int main(void)
{
	for (;;)
		caller(200000);
}
