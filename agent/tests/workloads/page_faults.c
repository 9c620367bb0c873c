/* Makes memory resident in known functions. Says "ready", waits for SIGUSR1, does what its first argument says, says what it has done in
   numbers, and waits for its end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define NOINLINE __attribute__((noipa))

static volatile unsigned char sink;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static char *map(size_t bytes, int flags)
{
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap");
    return memory;
}

NOINLINE static void touch_page(char *page)
{
    *(volatile char *)page = 1;
}

NOINLINE static void touch_all(char *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) touch_page(memory + at);
    __asm__ volatile("" ::: "memory");
}

NOINLINE static void touch_again(char *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) touch_page(memory + at);
    __asm__ volatile("" ::: "memory");
}

NOINLINE static void touch_left(char *page)
{
    *(volatile char *)page = 1;
}

NOINLINE static void touch_right(char *page)
{
    *(volatile char *)page = 2;
}

NOINLINE static void touch_by_turns(char *left, char *right, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) {
        touch_left(left + at);
        touch_right(right + at);
    }
    __asm__ volatile("" ::: "memory");
}

NOINLINE static void read_file(const char *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) sink = memory[at];
    __asm__ volatile("" ::: "memory");
}

NOINLINE static void write_copies(char *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) *(volatile char *)(memory + at) = 3;
    __asm__ volatile("" ::: "memory");
}

NOINLINE static void short_touch(char *memory, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) *(volatile char *)(memory + at) = 4;
    __asm__ volatile("" ::: "memory");
}

/* A file whose pages are all in memory, mapped as nobody has read it. */
static const char *cached_file(const char *path, size_t bytes)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (file < 0) fail(path);
    char *chunk = malloc(MIB);
    memset(chunk, 7, MIB);
    for (size_t at = 0; at < bytes; at += MIB)
        if (write(file, chunk, MIB) != (ssize_t)MIB) fail("write");
    free(chunk);
    const char *memory = mmap(0, bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (memory == MAP_FAILED) fail("mmap");
    return memory;
}

static void start(void)
{
    sigset_t set;
    int number;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    puts("ready");
    fflush(stdout);
    sigwait(&set, &number);
}

static void done(unsigned long first, unsigned long second)
{
    printf("%lu %lu\n", first, second);
    fflush(stdout);
    for (;;) pause();
}

int main(int count, char **arguments)
{
    const char *mode = count > 1 ? arguments[1] : "";
    if (strcmp(mode, "short") == 0) {
        prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
        short_touch(map(16 * MIB, MAP_PRIVATE), 16 * MIB);
        return 0;
    }
    if (strcmp(mode, "huge") == 0) {
        size_t bytes = 1024 * MIB;
        char *memory = map(bytes + 2 * MIB, MAP_PRIVATE);
        memory = (char *)(((unsigned long)memory + 2 * MIB - 1) & ~(2 * MIB - 1));
        if (madvise(memory, bytes, MADV_HUGEPAGE) != 0) fail("madvise");
        start();
        touch_all(memory, bytes);
        done(bytes, 0);
    }
    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
    if (strcmp(mode, "small") == 0) {
        size_t bytes = 1088 * MIB;
        char *memory = map(bytes, MAP_PRIVATE);
        start();
        touch_all(memory, bytes);
        done(bytes, 0);
    }
    if (strcmp(mode, "again") == 0) {
        size_t bytes = 256 * MIB;
        mallopt(M_MMAP_THRESHOLD, 1 << 30);
        mallopt(M_TRIM_THRESHOLD, 1 << 30);
        start();
        char *memory = malloc(bytes);
        touch_all(memory, bytes);
        free(memory);
        char *second = malloc(bytes);
        touch_again(second, bytes);
        done(bytes, memory == second);
    }
    if (strcmp(mode, "by-turns") == 0) {
        size_t bytes = 512 * MIB;
        char *left = map(bytes, MAP_PRIVATE), *right = map(bytes, MAP_PRIVATE);
        start();
        touch_by_turns(left, right, bytes);
        done(bytes, bytes);
    }
    if (strcmp(mode, "file") == 0 && count > 2) {
        size_t bytes = 256 * MIB;
        const char *memory = cached_file(arguments[2], bytes);
        start();
        read_file(memory, bytes);
        done(bytes, 0);
    }
    if (strcmp(mode, "shared") == 0) {
        size_t bytes = 256 * MIB;
        char *memory = map(bytes, MAP_SHARED);
        start();
        touch_all(memory, bytes);
        done(bytes, 0);
    }
    if (strcmp(mode, "fork") == 0) {
        size_t bytes = 256 * MIB;
        char *memory = map(bytes, MAP_PRIVATE), *fresh = map(bytes, MAP_PRIVATE);
        touch_all(memory, bytes);
        start();
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            write_copies(memory, bytes);
            touch_all(fresh, bytes);
            done((unsigned long)getpid(), bytes);
        }
        for (;;) pause();
    }
    if (strcmp(mode, "brief") == 0) {
        unsigned long processes = 40;
        start();
        for (unsigned long number = 0; number < processes; number++) {
            pid_t child = fork();
            if (child < 0) fail("fork");
            if (child == 0) {
                execl("/proc/self/exe", arguments[0], "short", (char *)0);
                _exit(127);
            }
            waitpid(child, 0, 0);
        }
        done(processes, 16 * MIB);
    }
    fprintf(stderr, "unknown mode %s\n", mode);
    return 2;
}
