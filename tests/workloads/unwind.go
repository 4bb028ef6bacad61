// Chains of calls in goroutines; until killed. usage: unwind recursion|iteration|main
package main

import "os"

var sink uint64

//go:noinline
func spin(rounds uint64) uint64 {
	state := sink | 1
	for i := uint64(0); i < rounds; i++ {
		state = state*0x5851f42d4c957f2d + 1
	}
	sink = state
	return state
}

// With a frame of its own.
//
//go:noinline
func last(x uint64) uint64 { return spin(100000) + x }

// Deep enough for the goroutine's stack to be moved.
//
//go:noinline
func recurses(depth uint64) uint64 {
	var local [20]uint64
	if depth == 0 {
		return last(depth)
	}
	local[depth%20] = depth
	return recurses(depth-1) + local[(depth+1)%20]
}

//go:noinline
func iterates(numbers map[uint64]uint64) (sum uint64) {
	for key, value := range numbers {
		sum += key ^ value
	}
	return sum
}

//go:noinline
func recursion() {
	for {
		sink += recurses(30)
	}
}

//go:noinline
func iteration() {
	numbers := map[uint64]uint64{}
	for i := uint64(0); i < 50000; i++ {
		numbers[i] = i * 3
	}
	for {
		sink += iterates(numbers)
	}
}

func main() {
	mode := ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	switch mode {
	case "recursion":
		go recursion()
	case "iteration":
		go iteration()
	default:
		recursion()
	}
	select {}
}
