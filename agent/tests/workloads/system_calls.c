// Half computes, half calls the kernel: what another tool's tracepoint program can slow down.
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void compute(void)
{
	for (int i = 0; i < 100000; i++)
		sink += (uint64_t)i * 7;
}

int main(void)
{
	for (;;) {
		compute();
		syscall(SYS_getppid);
	}
}
