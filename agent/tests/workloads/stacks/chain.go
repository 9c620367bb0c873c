// A chain of functions in the main goroutine.
package main

var sink uint64

//go:noinline
func leaf(turns int) {
	for i := 0; i < turns; i++ {
		sink += uint64(i) * 7
	}
}

//go:noinline
func middle(turns int) {
	leaf(turns)
	sink++
}

//go:noinline
func burn(turns int) {
	middle(turns)
	sink++
}

func main() {
	for {
		burn(2000)
	}
}
