// A Go function that calls C, which Go does on another stack.
package main

// #cgo CFLAGS: -O2 -fomit-frame-pointer
// static volatile unsigned long sink;
// __attribute__((noinline)) static void leaf_in_c(unsigned long turns) {
//     for (unsigned long i = 0; i < turns; i++)
//         sink += i * 7;
// }
// static void burn(unsigned long turns) {
//     leaf_in_c(turns);
//     sink++;
// }
import "C"

//go:noinline
func call(turns uint64) {
	C.burn(C.ulong(turns))
}

func main() {
	for {
		call(200000)
	}
}
