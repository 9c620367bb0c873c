// A timer's signal interrupts known functions; its handler works as long as it pleases.
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>

#define LINK __attribute__((noipa)) static

static volatile uint64_t sink;

LINK void spin_in_handler(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

LINK void on_signal(int number)
{
	spin_in_handler(8000000 + number);
	sink++;
}

LINK void interrupted(int turns)
{
	for (int i = 0; i < turns; i++)
		sink++;
}

LINK void caller(int turns)
{
	interrupted(turns);
	sink++;
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct itimerval timer = { .it_interval = { 0, 20000 }, .it_value = { 0, 20000 } };

	sigaction(SIGPROF, &action, 0);
	setitimer(ITIMER_PROF, &timer, 0);
	for (;;)
		caller(2000);
}
