#pragma once

#include <immintrin.h>

#include "../kernels.h"

namespace fastattn::FASTATTN_ISA {
namespace {

using vf = __m512;     // a vector of floats; + - * / and unary - are the compiler's
using vm = __mmask16;  // a mask: one bit a lane
constexpr int W = 16;

FASTATTN_INLINE vf set1(float x) { return _mm512_set1_ps(x); }
FASTATTN_INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
FASTATTN_INLINE void store(float* p, vf x) { _mm512_storeu_ps(p, x); }
FASTATTN_INLINE void stream(float* p, vf x) { _mm512_stream_ps(p, x); }  // p is aligned to a vector
FASTATTN_INLINE void stream_fence() { _mm_sfence(); }

FASTATTN_INLINE vm first(i64 n) { return static_cast<vm>(n >= W ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u); }
FASTATTN_INLINE vf load_first(const float* p, i64 n) { return _mm512_maskz_loadu_ps(first(n), p); }
FASTATTN_INLINE void store_first(float* p, vf x, i64 n) { _mm512_mask_storeu_ps(p, first(n), x); }

FASTATTN_INLINE vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
FASTATTN_INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
FASTATTN_INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
FASTATTN_INLINE vf sqrt(vf a) { return _mm512_sqrt_ps(a); }
FASTATTN_INLINE vf abs(vf a) { return _mm512_abs_ps(a); }
FASTATTN_INLINE vf to_exponent(vf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }

FASTATTN_INLINE vm less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
FASTATTN_INLINE vm equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
FASTATTN_INLINE vf select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

FASTATTN_INLINE float reduce_add(vf x) { return _mm512_reduce_add_ps(x); }
FASTATTN_INLINE float reduce_max(vf x) { return _mm512_reduce_max_ps(x); }

constexpr int activation_offset = 0;
#ifdef FASTATTN_EMULATED
constexpr DotProduct dot_product = DotProduct::none;
FASTATTN_INLINE vf dot(vf, vf, vf acc) { return acc; }  // there is none
FASTATTN_INLINE __m512i maddubs(vf x, const float* y) {
    return _mm512_maddubs_epi16(_mm512_castps_si512(x), _mm512_castps_si512(load(y)));
}
#else
constexpr DotProduct dot_product = DotProduct::avx512_vnni;

// Not the intrinsic: this object is compiled for processors without it, too.
FASTATTN_INLINE vf dot(vf x, vf y, vf acc) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(x), "vm"(y));
    return acc;
}
// The intrinsic would read y into a register, once for all rows of a tile, which has none to spare.
FASTATTN_INLINE __m512i maddubs(vf x, const float* y) {
    __m512i sums;
    asm("vpmaddubsw %1, %2, %0" : "=v"(sums) : "m"(*reinterpret_cast<const __m512i_u*>(y)), "v"(x));
    return sums;
}
#endif

FASTATTN_INLINE vf dot_pairs(vf xa, const float* ya, vf xb, const float* yb, vf acc) {
    const __m512i a = maddubs(xa, ya), b = maddubs(xb, yb);
    const __m512i sums = _mm512_madd_epi16(_mm512_add_epi16(a, b), _mm512_set1_epi16(1));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(acc), sums));
}
FASTATTN_INLINE vf dequantized(vf acc, int zero, vf sums) {
    const __m512i product = _mm512_mullo_epi32(_mm512_set1_epi32(zero), _mm512_castps_si512(sums));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(acc), product));
}
FASTATTN_INLINE void store_low_bytes(std::uint8_t* p, vf x, i64 n) {
    _mm512_mask_cvtepi32_storeu_epi8(p, first(n), _mm512_castps_si512(x));
}
FASTATTN_INLINE vf low_bfloat16(vf x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16)); }
FASTATTN_INLINE vf high_bfloat16(vf x) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
