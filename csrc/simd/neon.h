#pragma once

#include <arm_neon.h>

#include "../kernels.h"

namespace fastattn::FASTATTN_ISA {
namespace {

using vf = float32x4_t;  // a vector of floats; + - * / and unary - are the compiler's
using vm = uint32x4_t;   // a mask: all bits of a lane, or none
constexpr int W = 4;

FASTATTN_INLINE vf set1(float x) { return vdupq_n_f32(x); }
FASTATTN_INLINE vf load(const float* p) { return vld1q_f32(p); }
FASTATTN_INLINE void store(float* p, vf x) { vst1q_f32(p, x); }
FASTATTN_INLINE void stream(float* p, vf x) { vst1q_f32(p, x); }
FASTATTN_INLINE void stream_fence() {}

FASTATTN_INLINE vm first(i64 n) {
    const uint32_t lane[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(lane), vdupq_n_u32(static_cast<uint32_t>(n < 0 ? 0 : n > W ? W : n)));
}
FASTATTN_INLINE vf load_first(const float* p, i64 n) {
    if (n >= W) return load(p);
    vf x = vdupq_n_f32(
        0.0f);  // not a loop: compilers make it a call of memcpy, and every accumulator is spilled around it
    if (n > 0) x = vld1q_lane_f32(p, x, 0);
    if (n > 1) x = vld1q_lane_f32(p + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(p + 2, x, 2);
    return x;
}
FASTATTN_INLINE void store_first(float* p, vf x, i64 n) {
    if (n >= W) return store(p, x);
    if (n > 0) vst1q_lane_f32(p, x, 0);
    if (n > 1) vst1q_lane_f32(p + 1, x, 1);
    if (n > 2) vst1q_lane_f32(p + 2, x, 2);
}

FASTATTN_INLINE vf fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
FASTATTN_INLINE vf min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
FASTATTN_INLINE vf max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
FASTATTN_INLINE vf sqrt(vf a) { return vsqrtq_f32(a); }
FASTATTN_INLINE vf abs(vf a) { return vabsq_f32(a); }
FASTATTN_INLINE vf to_exponent(vf a) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(a), 23)); }

FASTATTN_INLINE vm less(vf a, vf b) { return vcltq_f32(a, b); }
FASTATTN_INLINE vm equal(vf a, vf b) { return vceqq_f32(a, b); }
FASTATTN_INLINE vf select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }

FASTATTN_INLINE float reduce_add(vf x) {
    const float32x2_t h = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(h, 0) + vget_lane_f32(h, 1);
}
FASTATTN_INLINE float reduce_max(vf x) {
    float lanes[W];
    vst1q_f32(lanes, x);
    float m = lanes[0];
    for (int i = 1; i < W; ++i) m = lanes[i] > m ? lanes[i] : m;
    return m;
}

constexpr DotProduct dot_product = DotProduct::neon_dotprod;
constexpr int activation_offset = 128;  // the instructions multiply signed bytes

FASTATTN_INLINE vf dot(vf x, vf y, vf acc) {
    asm(".arch_extension dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(x), "w"(y));
    return acc;
}
FASTATTN_INLINE vf dot_pairs(vf xa, const float* ya, vf xb, const float* yb, vf acc) {
    const int8x16_t a = vreinterpretq_s8_f32(xa), b = vreinterpretq_s8_f32(xb);
    const int8x16_t c = vreinterpretq_s8_f32(load(ya)), d = vreinterpretq_s8_f32(load(yb));
    const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(a), vget_low_s8(c)), vget_low_s8(b), vget_low_s8(d));
    const int16x8_t high = vmlal_s8(vmull_s8(vget_high_s8(a), vget_high_s8(c)), vget_high_s8(b), vget_high_s8(d));
    const int32x4_t sums = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(acc), sums));
}
FASTATTN_INLINE vf dequantized(vf acc, int zero, vf sums) {
    return vcvtq_f32_s32(vmlsq_n_s32(vreinterpretq_s32_f32(acc), vreinterpretq_s32_f32(sums), zero));
}
FASTATTN_INLINE void store_low_bytes(std::uint8_t* p, vf x, i64 n) {
    const uint16x4_t halves = vmovn_u32(vreinterpretq_u32_f32(x));
    const uint8x8_t bytes = vmovn_u16(vcombine_u16(halves, halves));
    const std::uint32_t four = vget_lane_u32(vreinterpret_u32_u8(bytes), 0);
    if (n == W) return void(__builtin_memcpy(p, &four, W));
    for (i64 i = 0; i < n; ++i) p[i] = static_cast<std::uint8_t>(four >> 8 * i);
}
FASTATTN_INLINE vf low_bfloat16(vf x) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(x), 16)); }
FASTATTN_INLINE vf high_bfloat16(vf x) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0xffff0000u)));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
