// Two goroutines that each run a leaf without a frame, and ask for the time, which Go does on another stack.
package main

import "time"

var sinks [2]uint64

//go:noinline
func leaf(sink *uint64, turns int) {
	for i := 0; i < turns; i++ {
		*sink += uint64(i) * 7
	}
}

//go:noinline
func clock() uint64 {
	return uint64(time.Now().UnixNano())
}

//go:noinline
func work(sink *uint64) {
	for {
		leaf(sink, 20000)
		for i := 0; i < 300; i++ {
			*sink += clock()
		}
	}
}

func second() {
	work(&sinks[1])
}

func main() {
	go second()
	work(&sinks[0])
}
