// Maps one page of its own code COUNT times, each a mapping of its own because the file's offset is always the same, and burns below
// three of them at a time: burn, relay three times, main.
#define _GNU_SOURCE
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096ul
#define PATHS 3

typedef void relay_function(void **path);

// Calls the first function of the path that it is given, with the rest of the path. The page is its own, and may be mapped anywhere.
__asm__(".section .text.relay,\"ax\",@progbits\n"
	".balign 4096\n"
	".globl relay\n"
	".type relay,@function\n"
	"relay:\n"
	".cfi_startproc\n"
	"push %rbx\n"
	".cfi_adjust_cfa_offset 8\n"
	"sub $48, %rsp\n"
	".cfi_adjust_cfa_offset 48\n"
	"mov (%rdi), %rax\n"
	"add $8, %rdi\n"
	"call *%rax\n"
	"add $48, %rsp\n"
	".cfi_adjust_cfa_offset -48\n"
	"pop %rbx\n"
	".cfi_adjust_cfa_offset -8\n"
	"ret\n"
	".cfi_endproc\n"
	".size relay, . - relay\n"
	".balign 4096\n"
	".text\n");

extern char relay[];
static volatile uint64_t sink;

__attribute__((noinline)) static void burn(void **path)
{
	(void)path;
	for (int i = 0; i < 1000000; i++)
		sink += (uint64_t)i * 7;
}

// Where `relay` lies in this program's file.
static int find(struct dl_phdr_info *object, size_t size, void *offset)
{
	uintptr_t address = (uintptr_t)relay - object->dlpi_addr;

	(void)size;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &object->dlpi_phdr[i];

		if (part->p_type == PT_LOAD && address - part->p_vaddr < part->p_memsz) {
			*(off_t *)offset = part->p_offset + (address - part->p_vaddr);
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 0;
	char *area = mmap(NULL, count * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	off_t offset = 0;

	if (area == MAP_FAILED || file < 0 || count < 100 || !dl_iterate_phdr(find, &offset))
		return 1;
	// From the top down, as mmap hands addresses out.
	for (size_t i = count; i-- > 0;) {
		void *at = mmap(area + i * PAGE, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, offset);

		if (at == MAP_FAILED) {
			perror("mmap");
			return 1;
		}
	}
	puts("ready");
	fflush(stdout);
	for (size_t i = 0;; i = (i + 1) % PATHS) {
		void *path[] = {area + (7 + i) * PAGE, area + (count / 2 + i) * PAGE, area + (count - 9 + i) * PAGE,
				(void *)burn};

		((relay_function *)path[0])(path + 1);
	}
}
