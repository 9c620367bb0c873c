/** Computes in one function, which another one calls. */
public class Burn {
	static volatile long sink;

	static long hot(long rounds) {
		long sum = 0;
		for (long i = 0; i < rounds; i++)
			sum += i * 31 ^ (sum >> 3);
		return sum;
	}

	static long middle(long rounds) {
		return hot(rounds) + 1;
	}

	public static void main(String[] arguments) {
		while (true)
			sink = middle(100000);
	}
}
