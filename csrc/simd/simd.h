// The vector vocabulary of the instruction set that this object is compiled for.
//
// Each header defines vf, vm and W, and: set1 load store stream stream_fence, first load_first store_first (only the
// first n lanes exist; the others load as 0), fma min max (b where either is NaN) sqrt abs to_exponent (the low nine
// bits of the representation, moved to where sign and exponent are), less equal select, reduce_add reduce_max (in an
// order that is fixed for the instruction set).
//
// And, for weights of fewer bits, where a lane of a vf holds the bits of four bytes, two bfloat16 or an int32:
// dot_pairs adds, to an int32, the four products of the bytes of xa and those at ya, and the four of xb and yb; x is
// unsigned, or less by activation_offset, and y is signed; the sum of |y| over the bytes 0 and 1 of ya and yb, and over
// 2 and 3, is at most 128, so that no product of the instruction saturates. dot does it for one pair, with no such
// limit, where the processor has `dot_product`. dequantized is the float of acc - zero * sums, store_low_bytes stores
// the lowest byte of the first n lanes, low_bfloat16 and high_bfloat16 are the floats of the halves.
#pragma once

#include "../processor.h"

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

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || __FINITE_MATH_ONLY__
#error "kernels cannot be compiled with -ffast-math or a part of it: their results would change"
#endif

namespace fastattn::FASTATTN_ISA {
namespace {

// Two vectors worked on together. A long formula on one vector leaves the multipliers waiting, since the processor
// looks only some sixty operations ahead; two interleaved ones do not. Same operations as vf, same bits.
struct vf2 {
    vf a, b;
};
struct vm2 {
    vm a, b;
};

FASTATTN_INLINE vf2 operator+(vf2 x, vf2 y) { return {x.a + y.a, x.b + y.b}; }
FASTATTN_INLINE vf2 operator-(vf2 x, vf2 y) { return {x.a - y.a, x.b - y.b}; }
FASTATTN_INLINE vf2 operator*(vf2 x, vf2 y) { return {x.a * y.a, x.b * y.b}; }
FASTATTN_INLINE vf2 operator/(vf2 x, vf2 y) { return {x.a / y.a, x.b / y.b}; }
FASTATTN_INLINE vf2 operator-(vf2 x) { return {-x.a, -x.b}; }
FASTATTN_INLINE vf2 fma(vf2 x, vf2 y, vf2 z) { return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)}; }
FASTATTN_INLINE vf2 min(vf2 x, vf2 y) { return {min(x.a, y.a), min(x.b, y.b)}; }
FASTATTN_INLINE vf2 max(vf2 x, vf2 y) { return {max(x.a, y.a), max(x.b, y.b)}; }
FASTATTN_INLINE vf2 abs(vf2 x) { return {abs(x.a), abs(x.b)}; }
FASTATTN_INLINE vf2 to_exponent(vf2 x) { return {to_exponent(x.a), to_exponent(x.b)}; }
FASTATTN_INLINE vm2 less(vf2 x, vf2 y) { return {less(x.a, y.a), less(x.b, y.b)}; }
FASTATTN_INLINE vm2 equal(vf2 x, vf2 y) { return {equal(x.a, y.a), equal(x.b, y.b)}; }
FASTATTN_INLINE vf2 select(vm2 m, vf2 x, vf2 y) { return {select(m.a, x.a, y.a), select(m.b, x.b, y.b)}; }
FASTATTN_INLINE vf2 dequantized(vf2 acc, int zero, vf2 sums) {
    return {dequantized(acc.a, zero, sums.a), dequantized(acc.b, zero, sums.b)};
}
FASTATTN_INLINE vf2 load2(const float* p) { return {load(p), load(p + W)}; }
FASTATTN_INLINE void store2(float* p, vf2 x) {
    store(p, x.a);
    store(p + W, x.b);
}

template <typename V>  // vf or vf2
FASTATTN_INLINE V constant(float x) {
    if constexpr (sizeof(V) == sizeof(vf))
        return set1(x);
    else
        return {set1(x), set1(x)};
}

FASTATTN_INLINE vf zero() { return set1(0.0f); }
FASTATTN_INLINE i64 divide_up(i64 n, i64 divisor) { return (n + divisor - 1) / divisor; }
FASTATTN_INLINE i64 round_up(i64 n, i64 multiple) { return divide_up(n, multiple) * multiple; }
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

// A position in an array: at(x) is the vector of x that begins there, a vf2 or a vf.
struct At2 {
    i64 i;
    vf2 operator()(const float* x) const { return load2(x + i); }
    void put(float* y, vf2 v) const { store2(y + i, v); }
};
struct At {
    i64 i, n;
    vf operator()(const float* x) const { return load_n(x + i, n); }
    void put(float* y, vf v) const { store_n(y + i, v, n); }
};

// f(at) for every position begin <= i < end; f takes an At2 or an At.
template <typename F>
FASTATTN_INLINE void for_floats(i64 begin, i64 end, F f) {
    i64 i = begin;
    for (; i + 2 * W <= end; i += 2 * W) f(At2{i});
    if (i + W <= end) {
        f(At{i, W});
        i += W;
    }
    if (i < end) f(At{i, end - i});
}

// y[i] = f(at) for begin <= i < end
template <typename F>
FASTATTN_INLINE void fill_floats(float* y, i64 begin, i64 end, F f) {
    for_floats(begin, end, [&](auto at) __attribute__((always_inline)) { at.put(y, f(at)); });
}

// y[i] = f(x[i]) for `count` floats; f takes a vf or a vf2.
template <typename F>
FASTATTN_INLINE void map_floats(float* y, const float* x, i64 count, F f) {
    fill_floats(y, 0, count, [&](auto at) { return f(at(x)); });
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
