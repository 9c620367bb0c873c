// A library with functions of every binding and visibility, and with aliases: what stripping leaves and what it takes away.
#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#define ALONE __attribute__((noipa))
#define HIDDEN __attribute__((visibility("hidden")))

#define LOCALS(N)                                                                                                   \
	static ALONE int file_local_##N(int value)                                                                      \
	{                                                                                                               \
		return value * N + 1;                                                                                       \
	}                                                                                                               \
	HIDDEN ALONE int hidden_##N(int value)                                                                          \
	{                                                                                                               \
		return file_local_##N(value) + N;                                                                           \
	}                                                                                                               \
	int exported_##N(int value)                                                                                     \
	{                                                                                                               \
		return hidden_##N(value) - N;                                                                               \
	}

#define TEN(N) LOCALS(N##0) LOCALS(N##1) LOCALS(N##2) LOCALS(N##3) LOCALS(N##4)

LOCALS(1)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6)

namespace
{
struct Counter {
	std::map<std::string, std::vector<int>> seen;

	ALONE void add(const std::string &name, int value)
	{
		seen[name].push_back(value);
	}

	ALONE int largest() const
	{
		int most = 0;
		for (const auto &[name, values] : seen) {
			auto copy = values;
			std::sort(copy.begin(), copy.end(), [](int a, int b) { return a > b; });
			if (copy.empty())
				throw std::runtime_error("nothing of " + name);
			most = std::max(most, copy.front());
		}
		return most;
	}
};
} // namespace

extern "C" ALONE int first_name(int value)
{
	return value + 41;
}

// Three names of one function, of which the second is not exported.
extern "C" int first_name_alias(int value) __attribute__((alias("first_name")));
extern "C" HIDDEN int __first_name_hidden(int value) __attribute__((alias("first_name")));

int count_words(const std::vector<std::string> &words)
{
	Counter counter;
	for (const auto &word : words)
		counter.add(word, static_cast<int>(word.size()));
	return counter.largest();
}
