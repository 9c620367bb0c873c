/* All time is spent in `inner`, which is inlined into `middle`, and that into `outer`. */

static volatile unsigned long sink;

static inline __attribute__((always_inline)) void inner(unsigned long seed)
{
	for (unsigned long n = 0; n < 1000000; n++)
		sink = sink * 31 + seed; /* the hot line: 8 */
}

static inline __attribute__((always_inline)) void middle(unsigned long seed)
{
	inner(seed + 1); /* 13 */
}

__attribute__((noinline)) void outer(unsigned long seed)
{
	middle(seed * 2); /* 18 */
}

int main(void)
{
	for (unsigned long turn = 0;; turn++)
		outer(turn);
}
