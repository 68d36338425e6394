#include "../dispatch.h"
#include "../simd/simd.h"

namespace fastattn::FASTATTN_ISA {

#define FASTATTN_KERNEL(name, Args) void name(const Args&);
#include "../kernels.inc"
#undef FASTATTN_KERNEL

namespace {

// Independent chains of FMAs on registers: the processor's peak. Returns the number of operations done.
double fma_burst(i64 rounds) {
    constexpr int chains = 12;  // at least latency times FMAs per cycle
    vf acc[chains];
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) acc[i] = set1(static_cast<float>(i));
    vf a = set1(0.999f), b = set1(0.001f);
    asm volatile("" : "+m"(a), "+m"(b));
    const vf scale = a, shift = b;
    for (i64 round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) acc[i] = fma(acc[i], scale, shift);
    }
    vf sum = zero();
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sum = sum + acc[i];
    float sink = reduce_add(sum);
    asm volatile("" : "+m"(sink));
    return 2.0 * W * chains * static_cast<double>(rounds);
}

}  // namespace

extern const KernelTable table;
const KernelTable table = {
#define FASTATTN_KERNEL(name, Args) name,
#include "../kernels.inc"
#undef FASTATTN_KERNEL
    fma_burst,
};

}  // namespace fastattn::FASTATTN_ISA
