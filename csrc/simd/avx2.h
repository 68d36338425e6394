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

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
