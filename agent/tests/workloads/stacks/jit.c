// Two functions made at run time, which keep frame pointers and call back into this program, which does not. With two names as
// arguments, it writes them into a perf map, as a JIT would; a library may follow, to be loaded first.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

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

static void write_map(const uint8_t *page, unsigned size, char **names)
{
	char path[64];
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	FILE *map = fopen(path, "w");
	fprintf(map, "%lX %X %s\nno line of a map\n%lX %X %s\n", (long)page, size, names[0], (long)page + 256, size, names[1]);
	fclose(map);
}

int main(int argc, char **argv)
{
	// push %rbp; mov %rsp,%rbp; mov %rdi,%rax; mov %rsi,%rdi; call *%rax; pop %rbp; ret
	static const uint8_t code[] = { 0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3 };
	uint8_t *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(page, code, sizeof(code));
	memcpy(page + 256, code, sizeof(code));
	if (argc > 3 && !dlopen(argv[3], RTLD_NOW))
		return 1;
	if (argc > 2)
		write_map(page, sizeof(code), argv + 1);
	for (;;)
		call_made((function)page, (function)(page + 256));
}
