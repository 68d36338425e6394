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

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
