// As shares.c, in methods of a class template in a namespace, one of them overloaded.
#include <csignal>
#include <cstdint>
#include <cstdio>

namespace {
volatile std::sig_atomic_t stop;
volatile std::uint64_t sink;

inline __attribute__((always_inline)) void churn(std::uint64_t rounds) {
    std::uint64_t state = sink | 1;
    for (std::uint64_t i = 0; i < rounds; i++) {
        state *= 0x5851f42d4c957f2du;
        state ^= state >> 29;
    }
    sink = state;
}
}  // namespace

namespace market {
template <typename Unit>
struct Engine {
    __attribute__((noinline)) void spin_seventy(Unit unit) { churn(70 * unit); }
    __attribute__((noinline)) void spin_twenty(Unit unit) { churn(20 * unit); }
    __attribute__((noinline)) void spin_ten(Unit unit) { churn(10 * unit); }
};
}  // namespace market

int main() {
    std::signal(SIGTERM, [](int) { stop = 1; });
    market::Engine<std::uint64_t> engine;
    std::uint64_t units = 0;
    while (!stop) {
        std::uint64_t unit = 2000 + sink % 4000;
        engine.spin_seventy(unit);
        engine.spin_twenty(unit);
        engine.spin_ten(unit);
        units += unit;
    }
    std::printf("spin_seventy %lu\nspin_twenty %lu\nspin_ten %lu\n", 70 * units, 20 * units, 10 * units);
}
