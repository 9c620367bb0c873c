// Two functions made at run time, which keep frame pointers and call back into this program, which does not.
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

typedef void (*function)(void *, void *);

static volatile uint64_t sink;

__attribute__((noipa)) static void leaf(void *unused, void *unused_too)
{
	for (int i = 0; i < 50000; i++)
		sink++;
}

__attribute__((noipa)) static void call_made(function outer, function inner)
{
	outer((void *)inner, (void *)leaf);
	sink++;
}

int main(void)
{
	// push %rbp; mov %rsp,%rbp; mov %rdi,%rax; mov %rsi,%rdi; call *%rax; pop %rbp; ret
	static const uint8_t code[] = { 0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3 };
	uint8_t *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(page, code, sizeof(code));
	memcpy(page + 256, code, sizeof(code));
	for (;;)
		call_made((function)page, (function)(page + 256));
}
