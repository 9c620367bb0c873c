// Burns 70 % of its CPU time in burn_seventy and 30 % in burn_thirty, by its own thread's CPU clock, in turns of 1 ms.
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

// The system call itself: its caller is then the function that burns, and not a libc without frame pointers.
static inline __attribute__((always_inline)) int64_t cpu_now(void)
{
	struct timespec now;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"((long)SYS_clock_gettime), "D"((long)CLOCK_THREAD_CPUTIME_ID), "S"(&now)
			 : "rcx", "r11", "memory");
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static volatile uint64_t sink;

__attribute__((noinline)) static void burn_seventy(int64_t until)
{
	while (cpu_now() < until)
		for (int i = 0; i < 5000; i++)
			sink += (uint64_t)i * 7;
}

__attribute__((noinline)) static void burn_thirty(int64_t until)
{
	while (cpu_now() < until)
		for (int i = 0; i < 5000; i++)
			sink ^= (uint64_t)i * 3;
}

int main(void)
{
	// What a turn is too long by, the next one makes up for: the shares are exact in the long run.
	int64_t at = cpu_now();

	for (;;) {
		burn_seventy(at += 700000);
		burn_thirty(at += 300000);
	}
}
