#pragma once

#include <immintrin.h>

#include "../kernels.h"

namespace fastattn::FASTATTN_ISA {
namespace {

using vf = __m256;  // a vector of floats; + - * / and unary - are the compiler's
using vm = __m256;  // a mask: all bits of a lane, or none
constexpr int W = 8;

FASTATTN_INLINE vf set1(float x) { return _mm256_set1_ps(x); }
FASTATTN_INLINE vf load(const float* p) { return _mm256_loadu_ps(p); }
FASTATTN_INLINE void store(float* p, vf x) { _mm256_storeu_ps(p, x); }
FASTATTN_INLINE void stream(float* p, vf x) { _mm256_stream_ps(p, x); }  // p is aligned to a vector
FASTATTN_INLINE void stream_fence() { _mm_sfence(); }

FASTATTN_INLINE __m256i first_lanes(i64 n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), lane);
}
FASTATTN_INLINE vm first(i64 n) { return _mm256_castsi256_ps(first_lanes(n)); }
FASTATTN_INLINE vf load_first(const float* p, i64 n) { return _mm256_maskload_ps(p, first_lanes(n)); }
FASTATTN_INLINE void store_first(float* p, vf x, i64 n) { _mm256_maskstore_ps(p, first_lanes(n), x); }

FASTATTN_INLINE vf fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
FASTATTN_INLINE vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
FASTATTN_INLINE vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
FASTATTN_INLINE vf sqrt(vf a) { return _mm256_sqrt_ps(a); }
FASTATTN_INLINE vf abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
FASTATTN_INLINE vf to_exponent(vf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23)); }

FASTATTN_INLINE vm less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
FASTATTN_INLINE vm equal(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
FASTATTN_INLINE vf select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }

FASTATTN_INLINE float reduce_add(vf x) {
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
FASTATTN_INLINE float reduce_max(vf x) {
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

constexpr DotProduct dot_product = DotProduct::none;
constexpr int activation_offset = 0;
FASTATTN_INLINE vf dot(vf, vf, vf acc) { return acc; }  // there is none

// The intrinsic would read y into a register, once for all rows of a tile, which has none to spare.
FASTATTN_INLINE __m256i maddubs(vf x, const float* y) {
    __m256i sums;
    asm("vpmaddubsw %1, %2, %0" : "=x"(sums) : "m"(*reinterpret_cast<const __m256i_u*>(y)), "x"(x));
    return sums;
}
FASTATTN_INLINE vf dot_pairs(vf xa, const float* ya, vf xb, const float* yb, vf acc) {
    const __m256i a = maddubs(xa, ya), b = maddubs(xb, yb);
    const __m256i sums = _mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(acc), sums));
}
FASTATTN_INLINE vf dequantized(vf acc, int zero, vf sums) {
    const __m256i product = _mm256_mullo_epi32(_mm256_set1_epi32(zero), _mm256_castps_si256(sums));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_castps_si256(acc), product));
}
FASTATTN_INLINE void store_low_bytes(std::uint8_t* p, vf x, i64 n) {
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_castps_si256(x), _mm256_set1_epi32(0x0c080400));
    const __m256i first = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    const long long eight = _mm_cvtsi128_si64(_mm256_castsi256_si128(first));
    if (n == W) return void(__builtin_memcpy(p, &eight, W));
    for (i64 i = 0; i < n; ++i) p[i] = static_cast<std::uint8_t>(eight >> 8 * i);
}
FASTATTN_INLINE vf low_bfloat16(vf x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16)); }
FASTATTN_INLINE vf high_bfloat16(vf x) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
