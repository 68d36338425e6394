// AVX-512 for processors without it: FASTATTN_ISAS with avx512_emulated puts this folder before the compiler's
// headers, so csrc/simd/avx512.h is compiled as it is. Each function does what the instruction does, in two halves,
// with the same bits. What is missing here does not compile.
#pragma once

#undef __AVX512F__  // the option defines it for our sources, not for the compiler's
#include_next <immintrin.h>
#define __AVX512F__ 1

#include <cstdint>

#undef _mm512_cmp_ps_mask  // macros of clang, and of GCC without optimization
#undef _mm512_slli_epi32

#define FASTATTN_EMULATED [[maybe_unused]] static inline __attribute__((always_inline))

namespace fastattn::FASTATTN_ISA {
namespace {

typedef std::uint32_t fastattn_bits __attribute__((vector_size(64)));

struct __m512 {
    __m256 low, high;
    __m512() = default;
    __m512(__m256 low, __m256 high) : low(low), high(high) {}
    explicit __m512(fastattn_bits x) { __builtin_memcpy(static_cast<void*>(this), &x, sizeof x); }
    explicit operator fastattn_bits() const {
        fastattn_bits x;
        __builtin_memcpy(&x, this, sizeof x);
        return x;
    }
};
struct __m512i {
    __m256i low, high;
};

FASTATTN_EMULATED __m512 operator+(__m512 a, __m512 b) { return {a.low + b.low, a.high + b.high}; }
FASTATTN_EMULATED __m512 operator-(__m512 a, __m512 b) { return {a.low - b.low, a.high - b.high}; }
FASTATTN_EMULATED __m512 operator*(__m512 a, __m512 b) { return {a.low * b.low, a.high * b.high}; }
FASTATTN_EMULATED __m512 operator/(__m512 a, __m512 b) { return {a.low / b.low, a.high / b.high}; }
FASTATTN_EMULATED __m512 operator-(__m512 a) { return {-a.low, -a.high}; }

// All bits of the lanes whose bit is in m.
FASTATTN_EMULATED __m512i fastattn_lanes(__mmask16 m) {
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return {_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m), bits), bits),
            _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(m >> 8), bits), bits)};
}

FASTATTN_EMULATED __m512 _mm512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
FASTATTN_EMULATED __m512 _mm512_loadu_ps(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
FASTATTN_EMULATED void _mm512_storeu_ps(float* p, __m512 x) {
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps(p + 8, x.high);
}
FASTATTN_EMULATED void _mm512_stream_ps(float* p, __m512 x) {
    if (reinterpret_cast<std::uintptr_t>(p) % 64) __builtin_trap();
    _mm256_stream_ps(p, x.low);
    _mm256_stream_ps(p + 8, x.high);
}
FASTATTN_EMULATED __m512 _mm512_maskz_loadu_ps(__mmask16 m, const float* p) {
    const __m512i lanes = fastattn_lanes(m);
    return {_mm256_maskload_ps(p, lanes.low), _mm256_maskload_ps(p + 8, lanes.high)};
}
FASTATTN_EMULATED void _mm512_mask_storeu_ps(float* p, __mmask16 m, __m512 x) {
    const __m512i lanes = fastattn_lanes(m);
    _mm256_maskstore_ps(p, lanes.low, x.low);
    _mm256_maskstore_ps(p + 8, lanes.high, x.high);
}

FASTATTN_EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
FASTATTN_EMULATED __m512 _mm512_min_ps(__m512 a, __m512 b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
FASTATTN_EMULATED __m512 _mm512_max_ps(__m512 a, __m512 b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
FASTATTN_EMULATED __m512 _mm512_sqrt_ps(__m512 a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
FASTATTN_EMULATED __m512 _mm512_abs_ps(__m512 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
FASTATTN_EMULATED __m512i _mm512_castps_si512(__m512 a) {
    return {_mm256_castps_si256(a.low), _mm256_castps_si256(a.high)};
}
FASTATTN_EMULATED __m512 _mm512_castsi512_ps(__m512i a) {
    return {_mm256_castsi256_ps(a.low), _mm256_castsi256_ps(a.high)};
}
FASTATTN_EMULATED __m512i _mm512_slli_epi32(__m512i a, int bits) {
    return {_mm256_slli_epi32(a.low, bits), _mm256_slli_epi32(a.high, bits)};
}

FASTATTN_EMULATED __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
    return {_mm256_maddubs_epi16(a.low, b.low), _mm256_maddubs_epi16(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
    return {_mm256_madd_epi16(a.low, b.low), _mm256_madd_epi16(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_add_epi16(__m512i a, __m512i b) {
    return {_mm256_add_epi16(a.low, b.low), _mm256_add_epi16(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
    return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_mullo_epi32(__m512i a, __m512i b) {
    return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) {
    return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
}
FASTATTN_EMULATED __m512i _mm512_set1_epi16(short x) { return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)}; }
FASTATTN_EMULATED __m512i _mm512_set1_epi32(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
FASTATTN_EMULATED __m512 _mm512_cvtepi32_ps(__m512i a) {
    return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)};
}
FASTATTN_EMULATED void _mm512_mask_cvtepi32_storeu_epi8(void* p, __mmask16 m, __m512i a) {
    std::int32_t lanes[16];
    __builtin_memcpy(lanes, &a, sizeof lanes);
    for (int i = 0; i < 16; ++i)
        if (m >> i & 1) static_cast<std::uint8_t*>(p)[i] = static_cast<std::uint8_t>(lanes[i]);
}

FASTATTN_EMULATED __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, const int predicate) {
    return static_cast<__mmask16>(_mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, predicate)) |
                                  _mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, predicate)) << 8);
}
FASTATTN_EMULATED __m512 _mm512_mask_blend_ps(__mmask16 m, __m512 a, __m512 b) {
    const __m512 lanes = _mm512_castsi512_ps(fastattn_lanes(m));
    return {_mm256_blendv_ps(a.low, b.low, lanes.low), _mm256_blendv_ps(a.high, b.high, lanes.high)};
}

// Upper and lower half, until one lane remains.
FASTATTN_EMULATED float _mm512_reduce_add_ps(__m512 x) {
    const __m256 eight = x.high + x.low;
    const __m128 four = _mm256_extractf128_ps(eight, 1) + _mm256_castps256_ps128(eight);
    const __m128 two = four + _mm_movehl_ps(four, four);
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
FASTATTN_EMULATED float _mm512_reduce_max_ps(__m512 x) {
    const __m256 eight = _mm256_max_ps(x.high, x.low);
    const __m128 four = _mm_max_ps(_mm256_extractf128_ps(eight, 1), _mm256_castps256_ps128(eight));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
