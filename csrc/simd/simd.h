// The vector vocabulary of the instruction set that this object is compiled for.
//
// Each header defines vf, vm and W, and: set1 load store stream, first load_first store_first (only the first n lanes
// exist; the others load as 0), fma min max (b where either is NaN) sqrt abs round pow2, less equal select,
// reduce_add reduce_max (in an order that is fixed for the instruction set).
#pragma once

#define FASTATTN_INLINE [[maybe_unused]] static inline __attribute__((always_inline))

#if defined(FASTATTN_GENERIC)
#include "generic.h"
#elif defined(__AVX512F__)
#include "avx512.h"
#elif defined(__AVX2__)
#include "avx2.h"
#elif defined(__ARM_NEON)
#include "neon.h"
#else
#error "no vocabulary for this instruction set"
#endif

namespace fastattn::FASTATTN_ISA {
namespace {

FASTATTN_INLINE vf zero() { return set1(0.0f); }
FASTATTN_INLINE i64 round_up(i64 n, i64 multiple) { return (n + multiple - 1) / multiple * multiple; }
FASTATTN_INLINE i64 lesser(i64 a, i64 b) { return a < b ? a : b; }
FASTATTN_INLINE i64 greater(i64 a, i64 b) { return a > b ? a : b; }

// One loop body for whole vectors and for the tail: body(i, n) with n == W, a constant, or n < W.
template <typename Body>
FASTATTN_INLINE void for_vectors(i64 count, Body body) {
    i64 i = 0;
    for (; i + W <= count; i += W) body(i, i64{W});
    if (i < count) body(i, count - i);
}

FASTATTN_INLINE vf load_n(const float* p, i64 n) { return n == W ? load(p) : load_first(p, n); }
FASTATTN_INLINE void store_n(float* p, vf x, i64 n) {
    if (n == W)
        store(p, x);
    else
        store_first(p, x, n);
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
