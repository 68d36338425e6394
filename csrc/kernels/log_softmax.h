// Shared by the kernels that take the log_softmax of rows.
#pragma once

#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// log_softmax(x) is x - shift - log_sum.
struct LogSum {
    float shift, log_sum;
};

// Of a row whose largest value is `largest`.
FASTATTN_INLINE LogSum log_sum_of(const float* x, i64 dim, float largest) {
    constexpr float inf = __builtin_inff();
    const float shift = largest == -inf ? 0.0f : largest;  // a row of -inf stays -inf
    const vf center = set1(shift);
    const float sum = row_sum(dim, [&](i64 i, i64 n) { return exp(load_or(x + i, n, -inf) - center); });
    return {shift, sum == 0.0f ? 0.0f : __builtin_logf(sum)};
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
