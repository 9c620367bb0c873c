// Calls itself as often as its argument says, and burns a CPU at the bottom.
#include <stdint.h>
#include <stdlib.h>

static volatile uint64_t sink;

__attribute__((noipa)) static void recurse(int more)
{
	if (more > 1)
		recurse(more - 1);
	else
		while (sink + 1)
			sink++;
	sink++;
}

int main(int count, char **arguments)
{
	recurse(atoi(arguments[count - 1]));
}
