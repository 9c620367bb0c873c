// Throws and catches all the time; what is done about it is work too.
#include <cstdint>

#define LINK extern "C" __attribute__((noipa))

static volatile uint64_t sink;

LINK void thrower(int turn)
{
	if (sink + 1 != 0)
		throw turn;
}

LINK void between(int turn)
{
	thrower(turn);
	sink = sink + 1;
}

LINK void hot_in_catch(int turns)
{
	for (int i = 0; i < turns; i++)
		sink = sink + 1;
}

LINK void catcher(int turn)
{
	try {
		between(turn);
	} catch (int caught) {
		hot_in_catch(500 + (caught & 1));
	}
}

LINK void outer(int turn)
{
	catcher(turn);
	sink = sink + 1;
}

int main()
{
	for (int turn = 0;; turn = (turn + 1) & 1023)
		outer(turn);
}
