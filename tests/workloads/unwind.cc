// options: -O2 -fomit-frame-pointer -falign-functions=1
// Throws and catches in the middle of a deep chain, by way of destructors and a virtual call; until killed.
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#define OPAQUE __attribute__((noipa))

static volatile uint64_t sink;

extern "C" {

OPAQUE uint64_t spin(uint64_t rounds) {
    uint64_t state = sink | 1;
    for (uint64_t i = 0; i < rounds; i++) {
        state = state * 0x5851f42d4c957f2du + 1;
    }
    sink = state;
    return state;
}

struct Guard {
    uint64_t value;
    OPAQUE ~Guard();
};

#define LEVEL(n, next)                                                                                                 \
    OPAQUE uint64_t t##n(uint64_t x) {                                                                                 \
        Guard guard{x};                                                                                                \
        std::vector<uint64_t> some(n, x);                                                                              \
        uint64_t result = next(x + n);                                                                                 \
        return result + some[0] + guard.value;                                                                         \
    }
OPAQUE uint64_t t12(uint64_t x) {
    uint64_t result = spin(100000);
    if (result != x) {
        throw std::runtime_error("thrown");
    }
    return result;
}
LEVEL(11, t12)
LEVEL(10, t11)
LEVEL(9, t10)
LEVEL(8, t9)
LEVEL(7, t8)

OPAQUE uint64_t catches(uint64_t x) {
    try {
        return t7(x) + 1;
    } catch (const std::runtime_error &error) {
        return spin(100000) + std::string(error.what()).size();
    }
}

LEVEL(5, catches)
LEVEL(4, t5)

struct Base {
    virtual ~Base() = default;
    virtual uint64_t call(uint64_t x) = 0;
};
struct Derived final : Base {
    OPAQUE uint64_t call(uint64_t x) override { return t4(x + 1) + x; }
};

OPAQUE uint64_t t2(Base &base, uint64_t x) { return base.call(x) + 1; }
OPAQUE uint64_t t1(uint64_t x) {
    Derived derived;
    return t2(derived, x) + 1;
}

}

Guard::~Guard() { sink = sink + value; }

int main() {
    for (;;) {
        sink = sink + t1(sink);
    }
}
