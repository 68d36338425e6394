#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Columns in groups of four vectors: one at a time, each row would be a jump to another page.
template <typename Combine>
FASTATTN_INLINE void fold_rows(float* y, const float* x, i64 ldx, i64 rows, i64 dim, Combine combine) {
    i64 i = 0;
    for (; i + 4 * W <= dim; i += 4 * W) {
        vf sum[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) sum[v] = combine(zero(), load(x + i + v * W), i64{0});
        for (i64 row = 1; row < rows; ++row) {
#pragma GCC unroll 4
            for (int v = 0; v < 4; ++v) sum[v] = combine(sum[v], load(x + row * ldx + i + v * W), row);
        }
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) store(y + i + v * W, sum[v]);
    }
    for_vectors(dim - i, [&](i64 j, i64 n) {
        vf sum = combine(zero(), load_n(x + i + j, n), i64{0});
        for (i64 row = 1; row < rows; ++row) sum = combine(sum, load_n(x + row * ldx + i + j, n), row);
        store_n(y + i + j, sum, n);
    });
}

FASTATTN_INLINE void scale_row(float* y, i64 dim, float divisor) {
    for_vectors(dim, [&](i64 i, i64 n) { store_n(y + i, load_n(y + i, n) / set1(divisor), n); });
}

void pooling_sequences(void* context, i64 begin, i64 end, void*) {
    const PoolingForward& args = *static_cast<PoolingForward*>(context);
    const i64 dim = args.dim, ldx = args.ldx;
    for (i64 b = begin; b < end; ++b) {
        float* y = args.y + b * dim;
        const float* x = args.x + args.cu_seqlens[b] * ldx;
        const i64 rows = args.cu_seqlens[b + 1] - args.cu_seqlens[b];
        const float length = static_cast<float>(rows);
        if (rows == 0) {
            for_vectors(dim, [&](i64 i, i64 n) { store_n(y + i, zero(), n); });
            continue;
        }
        const auto add = [](vf sum, vf row, i64) { return sum + row; };
        const auto take = [](vf, vf row, i64) { return row; };
        switch (args.mode) {
            case Pooling::mean:
                fold_rows(y, x, ldx, rows, dim, add);
                scale_row(y, dim, length);
                break;
            case Pooling::mean_sqrt_len:
                fold_rows(y, x, ldx, rows, dim, add);
                scale_row(y, dim, __builtin_sqrtf(length));
                break;
            case Pooling::weighted_mean:
                fold_rows(y, x, ldx, rows, dim,
                          [](vf sum, vf row, i64 i) { return fma(set1(static_cast<float>(i + 1)), row, sum); });
                scale_row(y, dim, length * (length + 1.0f) / 2.0f);
                break;
            case Pooling::max:
                // a NaN stays: max gives its second argument where either is NaN, and the comparison keeps an earlier
                // one
                fold_rows(y, x, ldx, rows, dim, [](vf sum, vf row, i64 i) {
                    return i == 0 ? row : select(equal(sum, sum), max(sum, row), sum);
                });
                break;
            case Pooling::cls: fold_rows(y, x, ldx, 1, dim, take); break;
            case Pooling::last: fold_rows(y, x + (rows - 1) * ldx, ldx, 1, dim, take); break;
        }
    }
}

}  // namespace

void pooling_forward(const PoolingForward& args) {
    PoolingForward context = args;
    const i64 tokens = args.batch > 0 ? args.cu_seqlens[args.batch] : 0;
    const i64 floats = args.dim * (tokens / greater(1, args.batch) + 1);
    parallel_for(args.batch, row_grain(floats), pooling_sequences, &context);
}

}  // namespace fastattn::FASTATTN_ISA
