// Maps FILE and runs the code at OFFSET in it for ever, as if it were void code(volatile uint64_t *); says when it begins.
// The stack then has the file's function, called from this program's run_it.
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

static volatile uint64_t sink;

__attribute__((noinline)) static void run_it(void (*code)(volatile uint64_t *))
{
	code(&sink);
}

int main(int count, char **arguments)
{
	struct stat status;
	int file = count == 3 ? open(arguments[1], O_RDONLY) : -1;

	if (file < 0 || fstat(file, &status) != 0)
		return 1;
	char *mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, 0);
	if (mapped == MAP_FAILED)
		return 1;
	puts("ready");
	fflush(stdout);
	run_it((void (*)(volatile uint64_t *))(mapped + strtoul(arguments[2], NULL, 0)));
}
