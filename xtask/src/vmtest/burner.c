/* A stack of a known depth that keeps a CPU busy. Built without frame pointers and against a static libc: it can only
 * be walked by unwind rules, from `spin` through DEPTH frames of `descend` and `main` to `_start`. */

static volatile unsigned long sink;

__attribute__((noinline)) static unsigned long spin(unsigned long seed) {
    for (unsigned long turn = 0; turn < 1000000; turn++)
        sink = seed = seed * 2862933555777941757UL + 3037000493UL;
    return seed;
}

__attribute__((noinline, optimize("no-optimize-sibling-calls"))) static unsigned long descend(int depth, unsigned long seed) {
    /* What is done with the result keeps the compiler from making the recursion a loop. */
    return depth > 1 ? descend(depth - 1, seed + 1) ^ sink : spin(seed) + depth;
}

int main(void) {
    for (unsigned long seed = 1;; seed++)
        sink = descend(DEPTH, seed);
}
