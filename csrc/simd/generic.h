#pragma once

#include "../kernels.h"

namespace fastattn::FASTATTN_ISA {
namespace {

typedef float vf __attribute__((vector_size(16)));         // four floats; + - * / and unary - are the compiler's
typedef std::int32_t vm __attribute__((vector_size(16)));  // a mask: all bits of a lane, or none
constexpr int W = 4;

FASTATTN_INLINE vf set1(float x) { return vf{x, x, x, x}; }
FASTATTN_INLINE vf load(const float* p) {
    vf x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
}
FASTATTN_INLINE void store(float* p, vf x) { __builtin_memcpy(p, &x, sizeof x); }
FASTATTN_INLINE void stream(float* p, vf x) { store(p, x); }
FASTATTN_INLINE void stream_fence() {}

FASTATTN_INLINE vm first(i64 n) {
    const std::int32_t count = static_cast<std::int32_t>(n);
    return vm{0, 1, 2, 3} < vm{count, count, count, count};
}
FASTATTN_INLINE vf load_first(const float* p, i64 n) {
    if (n >= W) return load(p);
    vf x = {};
    for (i64 i = 0; i < n; ++i) x[i] = p[i];
    return x;
}
FASTATTN_INLINE void store_first(float* p, vf x, i64 n) {
    if (n >= W) return store(p, x);
    for (i64 i = 0; i < n; ++i) p[i] = x[i];
}

FASTATTN_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
FASTATTN_INLINE vf select(vm m, vf a, vf b) { return m ? a : b; }
FASTATTN_INLINE vm less(vf a, vf b) { return a < b; }
FASTATTN_INLINE vm equal(vf a, vf b) { return a == b; }
FASTATTN_INLINE vf min(vf a, vf b) { return select(a < b, a, b); }
FASTATTN_INLINE vf max(vf a, vf b) { return select(a > b, a, b); }
FASTATTN_INLINE vf sqrt(vf a) {
    return vf{__builtin_sqrtf(a[0]), __builtin_sqrtf(a[1]), __builtin_sqrtf(a[2]), __builtin_sqrtf(a[3])};
}
FASTATTN_INLINE vf abs(vf a) { return reinterpret_cast<vf>(reinterpret_cast<vm>(a) & 0x7fffffff); }
FASTATTN_INLINE vf to_exponent(vf a) {
    typedef std::uint32_t bits __attribute__((vector_size(16)));
    return reinterpret_cast<vf>(reinterpret_cast<bits>(a) << 23);
}

FASTATTN_INLINE float reduce_add(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
FASTATTN_INLINE float reduce_max(vf x) {
    float m = x[0];
    for (int i = 1; i < W; ++i) m = x[i] > m ? x[i] : m;
    return m;
}

constexpr DotProduct dot_product = DotProduct::none;
constexpr int activation_offset = 0;
FASTATTN_INLINE vf dot(vf, vf, vf acc) { return acc; }  // there is none

FASTATTN_INLINE vm dot_bytes(vf x, vf y, vm acc) {
    const vm a = reinterpret_cast<vm>(x), b = reinterpret_cast<vm>(y);
    acc += (a & 255) * (b << 24 >> 24);
    acc += (a >> 8 & 255) * (b << 16 >> 24);
    acc += (a >> 16 & 255) * (b << 8 >> 24);
    return acc + (a >> 24 & 255) * (b >> 24);
}
FASTATTN_INLINE vf dot_pairs(vf xa, const float* ya, vf xb, const float* yb, vf acc) {
    return reinterpret_cast<vf>(dot_bytes(xb, load(yb), dot_bytes(xa, load(ya), reinterpret_cast<vm>(acc))));
}
FASTATTN_INLINE vf dequantized(vf acc, int zero, vf sums) {
    return __builtin_convertvector(reinterpret_cast<vm>(acc) - zero * reinterpret_cast<vm>(sums), vf);
}
FASTATTN_INLINE void store_low_bytes(std::uint8_t* p, vf x, i64 n) {
    const vm bits = reinterpret_cast<vm>(x);
    for (i64 i = 0; i < n; ++i) p[i] = static_cast<std::uint8_t>(bits[i]);
}
FASTATTN_INLINE vf low_bfloat16(vf x) {
    typedef std::uint32_t bits __attribute__((vector_size(16)));
    return reinterpret_cast<vf>(reinterpret_cast<bits>(x) << 16);
}
FASTATTN_INLINE vf high_bfloat16(vf x) {
    typedef std::uint32_t bits __attribute__((vector_size(16)));
    return reinterpret_cast<vf>(reinterpret_cast<bits>(x) & 0xffff0000u);
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
