// Runs FIRST for SECONDS and ends it, then SECOND as another process with the same process id, until it is killed; prints that id.
#define _GNU_SOURCE
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// clone3 with set_tid: a process of that id (0: of any), or an error when somebody else has it.
static pid_t start(const char *program, pid_t wanted)
{
	struct clone_args how = { .exit_signal = SIGCHLD };
	if (wanted != 0) {
		how.set_tid = (uint64_t)(uintptr_t)&wanted;
		how.set_tid_size = 1;
	}
	pid_t pid = (pid_t)syscall(SYS_clone3, &how, sizeof how);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (freopen("/dev/null", "w", stdout) == NULL)
			_exit(127);
		execl(program, program, (char *)NULL);
		_exit(127);
	}
	return pid;
}

int main(int count, char **arguments)
{
	if (count != 4)
		return 2;
	pid_t first = start(arguments[1], 0);
	if (first < 0)
		return 1;
	printf("%d\n", first);
	fflush(stdout);
	usleep((useconds_t)(atof(arguments[3]) * 1e6));
	kill(first, SIGKILL);
	if (waitpid(first, NULL, 0) != first || start(arguments[2], first) != first)
		return 1;
	waitpid(first, NULL, 0);
}
