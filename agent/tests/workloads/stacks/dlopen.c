// Loads the library that its argument names when SIGUSR1 comes, and never returns from it.
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>

static volatile sig_atomic_t now;
static volatile uint64_t sink;

static void on_signal(int number)
{
	now = number;
}

__attribute__((noipa)) static void wait_for_signal(void)
{
	while (!now)
		sink++;
}

__attribute__((noipa)) static void call_library(const char *path)
{
	void (*work)(volatile uint64_t *) = (void (*)(volatile uint64_t *))dlsym(dlopen(path, RTLD_NOW), "work_in_library");

	for (;;)
		work(&sink);
}

int main(int count, char **arguments)
{
	signal(SIGUSR1, on_signal);
	wait_for_signal();
	call_library(arguments[count - 1]);
}
