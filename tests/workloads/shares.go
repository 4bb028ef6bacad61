// As shares.c, in Go.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
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
	var units uint64
	for !stop.Load() {
		unit := 2000 + sink%4000
		spin_seventy(unit)
		spin_twenty(unit)
		spin_ten(unit)
		units += unit
	}
	fmt.Printf("spin_seventy %d\nspin_twenty %d\nspin_ten %d\n", 70*units, 20*units, 10*units)
}
