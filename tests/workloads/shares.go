// As shares.c, in Go.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

var sink uint64

func churn(rounds uint64) uint64 {
	state := sink | 1
	for i := uint64(0); i < rounds; i++ {
		state *= 0x5851f42d4c957f2d
		state ^= state >> 29
	}
	return state
}

//go:noinline
func spin_seventy(unit uint64) { sink = churn(70 * unit) }

//go:noinline
func spin_twenty(unit uint64) { sink = churn(20 * unit) }

//go:noinline
func spin_ten(unit uint64) { sink = churn(10 * unit) }

func main() {
	var stop atomic.Bool
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() { <-signals; stop.Store(true) }()
	var spent [3]time.Duration
	for !stop.Load() {
		unit := 2000 + sink%4000
		for i, spin := range []func(uint64){spin_seventy, spin_twenty, spin_ten} {
			start := time.Now()
			spin(unit)
			spent[i] += time.Since(start)
		}
	}
	for i, name := range []string{"spin_seventy", "spin_twenty", "spin_ten"} {
		fmt.Println(name, spent[i].Nanoseconds())
	}
}
