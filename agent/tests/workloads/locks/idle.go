// Threads of Go's runtime that have nothing to do, and threads that wait for one of the runtime's own locks: ./idle MODE, until it is
// killed. Says "ready".
//
//	idle       goroutines come and go a few times a second, and so do threads that run them
//	contended  many goroutines send and receive on one channel, which has a lock
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

func spin() {
	for end := time.Now().Add(2 * time.Millisecond); time.Now().Before(end); {
	}
}

func main() {
	runtime.GOMAXPROCS(8)
	fmt.Println("ready")
	if os.Args[1] == "contended" {
		shared := make(chan int, 1)
		for i := 0; i < 32; i++ {
			go func() {
				for {
					select {
					case shared <- 1:
					case <-shared:
					}
				}
			}()
		}
	}
	for {
		for i := 0; i < 4; i++ {
			go spin()
		}
		time.Sleep(20 * time.Millisecond)
	}
}
