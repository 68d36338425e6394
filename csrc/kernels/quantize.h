// Rows of activations as bytes, each row with its own scale and zero point.
#pragma once

#include <cfloat>

#include "../packing.h"
#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

struct QuantizedRows {   // x is about scales[row] * (byte - zeros[row])
    const float* bytes;  // [rows][depth], four bytes in each; beyond the row they are 0
    const float* scales;
    const std::int32_t* zeros;
    i64 depth;
};

// The float of rows of x that is quantized: x, or x * input_scales.
struct ScaledInput {
    const float* x;
    const float* input_scales;  // or null
    template <typename At>
    auto operator()(At at) const {
        return input_scales ? at(x) * at(input_scales) : at(x);
    }
};

// One row, affine: its least and largest value, and 0, are bytes 0 and 255 or between them. Every step is one float
// operation that is rounded the same way with every instruction set. A row with NaN or infinity gets the scale NaN; one
// that spans less than about 3e-36 counts as 0.
FASTATTN_INLINE void quantize_row(std::uint8_t* bytes, float* scale, std::int32_t* zero, ScaledInput input, i64 k) {
    vf2 lowest = constant<vf2>(0.0f), highest = lowest, bad = lowest;
    for_floats(0, k, [&](auto at) __attribute__((always_inline)) {
        const auto v = input(at);
        using V = decltype(v + v);
        if constexpr (sizeof(V) == sizeof(vf2)) {
            lowest = min(v, lowest);
            highest = max(v, highest);
            bad = bad + v * constant<V>(0.0f);
        } else {
            lowest.a = min(v, lowest.a);
            highest.a = max(v, highest.a);
            bad.a = bad.a + v * constant<V>(0.0f);
        }
    });
    const float low = -reduce_max(max(-lowest.a, -lowest.b)), high = reduce_max(max(highest.a, highest.b));
    const float step = high * (1.0f / 255.0f) - low * (1.0f / 255.0f);
    const bool spans = step >= FLT_MIN, finite = reduce_add(bad.a + bad.b) == 0.0f;
    const float inverse = spans ? 1.0f / step : 0.0f;
    // Adding `rounding` rounds to an integer, which is then in the low bits of the sum (math.h).
    const float nearest = spans ? -low * inverse + rounding : rounding;
    const float offset = rounding + activation_offset;
    const float zero_point = nearest - rounding;
    *scale = !finite ? __builtin_nanf("") : spans ? step : 0.0f;
    *zero = static_cast<std::int32_t>(finite ? zero_point : 0.0f) - activation_offset;
    const vf add = set1(offset + zero_point), most = set1(offset + 255.0f), factor = set1(inverse);
    for_vectors(k, [&](i64 i, i64 n) __attribute__((always_inline)) {
        const vf v = input(At{i, n}) * factor;
        store_low_bytes(bytes + i, min(v + add, most), n);
    });
}

// All rows, in memory for this call.
FASTATTN_INLINE QuantizedRows quantize_rows(const float* x, i64 ldx, i64 rows, i64 k, const float* input_scales) {
    const i64 depth = bytes_depth(k);
    float* const memory = shared_scratch(rows * (depth + 2));
    float* const scales = memory + rows * depth;
    std::int32_t* const zeros = reinterpret_cast<std::int32_t*>(scales + rows);
    for_rows(rows, k, [&](i64 row) {
        std::uint8_t* const bytes = reinterpret_cast<std::uint8_t*>(memory + row * depth);
        quantize_row(bytes, scales + row, zeros + row, {x + row * ldx, input_scales}, k);
        for (i64 i = k; i < 4 * depth; ++i) bytes[i] = 0;
    });
    return {memory, scales, zeros, depth};
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
