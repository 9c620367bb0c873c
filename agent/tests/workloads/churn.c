// Starts and ends COUNT processes in bursts, and prints their numbers: churn COUNT PROGRAM [DIRECTORY].
// In turn: one that executes PROGRAM, one that is only forked, one with threads. With DIRECTORY each executes a copy of PROGRAM of
// its own, which is deleted afterwards.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BURST 40

static volatile uint64_t sink;

static void *burn(void *nothing)
{
	for (int i = 0; i < 300000; i++)
		sink += (uint64_t)i * 7;
	return nothing;
}

static void threads(void)
{
	pthread_t all[3];

	for (int i = 0; i < 3; i++)
		if (pthread_create(&all[i], NULL, burn, NULL))
			_exit(1);
	for (int i = 0; i < 3; i++)
		pthread_join(all[i], NULL);
}

static void copy(const char *from, const char *to)
{
	struct stat about;
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);

	if (in < 0 || out < 0 || fstat(in, &about) || sendfile(out, in, NULL, about.st_size) != about.st_size) {
		perror(to);
		exit(1);
	}
	close(in);
	close(out);
}

static pid_t start(int number, const char *program, const char *own)
{
	pid_t pid = fork();

	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	if (pid > 0)
		return pid;
	if (*own || number % 3 == 0) {
		execl(*own ? own : program, "short", (char *)NULL);
		_exit(1);
	}
	if (number % 3 == 1)
		burn(NULL);
	else
		threads();
	_exit(0);
}

int main(int count, char **arguments)
{
	static char own[BURST][4096];
	pid_t started[BURST];
	int failed = 0;

	if (count < 3)
		return 2;
	for (int number = 0; number < atoi(arguments[1]); number += BURST) {
		for (int i = 0; i < BURST; i++) {
			if (count > 3) {
				snprintf(own[i], sizeof(own[i]), "%s/copy-%d", arguments[3], number + i);
				copy(arguments[2], own[i]);
			}
			started[i] = start(number + i, arguments[2], own[i]);
			printf("%d\n", started[i]);
			fflush(stdout);
		}
		for (int i = 0; i < BURST; i++) {
			int status;

			waitpid(started[i], &status, 0);
			failed += status != 0;
			if (*own[i])
				unlink(own[i]);
		}
	}
	return failed != 0;
}
