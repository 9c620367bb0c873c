// Loads a BPF program called burns_here that counts down, and has the kernel run it again and again until it is killed; says when it
// begins. Prints the program's name as kallsyms has it: bpf_prog_, its tag, its name (bpf_get_prog_name in kernel/bpf/core.c).
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 50000

static struct bpf_insn program[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = ROUNDS },
	{ .code = BPF_ALU64 | BPF_SUB | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
	{ .code = BPF_JMP | BPF_JNE | BPF_K, .dst_reg = BPF_REG_0, .off = -2, .imm = 0 },
	{ .code = BPF_JMP | BPF_EXIT },
};

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(SYS_bpf, command, attributes, sizeof *attributes);
}

int main(void)
{
	static char packet[64];
	union bpf_attr load = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER };
	struct bpf_prog_info info = { 0 };
	union bpf_attr ask = { 0 };

	load.insns = (uintptr_t)program;
	load.insn_cnt = sizeof program / sizeof *program;
	load.license = (uintptr_t)"GPL";
	strcpy(load.prog_name, "burns_here");
	int fd = bpf(BPF_PROG_LOAD, &load);
	if (fd < 0) {
		perror("bpf(BPF_PROG_LOAD)");
		return 1;
	}
	ask.info.bpf_fd = (uint32_t)fd;
	ask.info.info_len = sizeof info;
	ask.info.info = (uintptr_t)&info;
	if (bpf(BPF_OBJ_GET_INFO_BY_FD, &ask) != 0)
		return 1;
	printf("bpf_prog_");
	for (unsigned i = 0; i < sizeof info.tag; i++)
		printf("%02x", info.tag[i]);
	printf("_%s\n", info.name);
	fflush(stdout);
	for (;;) {
		union bpf_attr run = { 0 };
		run.test.prog_fd = (uint32_t)fd;
		run.test.data_in = (uintptr_t)packet;
		run.test.data_size_in = sizeof packet;
		run.test.repeat = 1000;
		if (bpf(BPF_PROG_TEST_RUN, &run) != 0) {
			perror("bpf(BPF_PROG_TEST_RUN)");
			return 1;
		}
	}
}
