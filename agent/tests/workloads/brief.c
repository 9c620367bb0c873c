// Burns a millisecond, with libraries: what churn.c executes.
#include <math.h>

static volatile double sink;

int main(int count, char **arguments)
{
	(void)arguments;
	for (int i = 0; i < 20000; i++)
		sink += sqrt(count + i) * cos(i);
	return 0;
}
