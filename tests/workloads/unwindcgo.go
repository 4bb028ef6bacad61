// A goroutine in C code and back, without end.
package main

/*
#cgo CFLAGS: -O2 -fomit-frame-pointer
#include <stdint.h>

static volatile uint64_t c_sink;

__attribute__((noipa)) uint64_t c_spin(uint64_t rounds) {
	uint64_t state = c_sink | 1;
	for (uint64_t i = 0; i < rounds; i++) {
		state = state * 0x5851f42d4c957f2du + 1;
	}
	c_sink = state;
	return state;
}

__attribute__((noipa)) uint64_t c_calls(uint64_t rounds) { return c_spin(rounds) + 1; }
*/
import "C"

//go:noinline
func calls(rounds uint64) uint64 { return uint64(C.c_calls(C.uint64_t(rounds))) + 1 }

func main() {
	done := make(chan bool)
	go func() {
		for {
			calls(100000)
		}
	}()
	<-done
}
