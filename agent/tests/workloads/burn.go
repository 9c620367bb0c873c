// Burns one CPU in main.burn, with a goroutine of its own.
package main

var sink uint64

//go:noinline
func burn(turns int) {
	for i := 0; i < turns; i++ {
		sink += uint64(i) * 7
	}
}

func main() {
	done := make(chan bool)
	go func() {
		for {
			burn(1000000)
		}
	}()
	<-done
}
