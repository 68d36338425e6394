#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Columns in groups of four vectors. With single vectors, every row would jump to another page.
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

void pool(const PoolingForward& args, i64 b) {
    const i64 dim = args.dim, ldx = args.ldx;
    float* y = args.y + b * dim;
    const float* x = args.x + args.cu_seqlens[b] * ldx;
    const i64 rows = args.cu_seqlens[b + 1] - args.cu_seqlens[b];
    const float length = static_cast<float>(rows);
    if (rows == 0) {
        for_vectors(dim, [&](i64 i, i64 n) { store_n(y + i, zero(), n); });
        return;
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
            // a NaN stays: max returns its second argument if either is NaN, and the comparison keeps an earlier NaN
            fold_rows(y, x, ldx, rows, dim,
                      [](vf sum, vf row, i64 i) { return i == 0 ? row : select(equal(sum, sum), max(sum, row), sum); });
            break;
        case Pooling::cls: fold_rows(y, x, ldx, 1, dim, take); break;
        case Pooling::last: fold_rows(y, x + (rows - 1) * ldx, ldx, 1, dim, take); break;
    }
}

// In each column, dy goes to the first row that holds the maximum or a NaN.
FASTATTN_INLINE void spread_to_largest(float* dx, const float* dy, const float* x, i64 ldx, i64 rows, i64 dim) {
    for_vectors(dim, [&](i64 i, i64 n) {
        vf largest = load_n(x + i, n);
        for (i64 row = 1; row < rows; ++row) {
            const vf v = load_n(x + row * ldx + i, n);
            largest = select(equal(largest, largest), max(largest, v), largest);
        }
        vf left = load_n(dy + i, n);
        for (i64 row = 0; row < rows; ++row) {
            const vf v = load_n(x + row * ldx + i, n);
            const vm is_largest = equal(v, largest), is_number = equal(v, v);
            store_n(dx + row * dim + i, select(is_number, select(is_largest, left, zero()), left), n);
            left = select(is_number, select(is_largest, zero(), left), zero());
        }
    });
}

void spread(const PoolingBackward& args, i64 b) {
    const i64 dim = args.dim;
    const float* dy = args.dy + b * args.lddy;
    const i64 first_row = args.cu_seqlens[b], rows = args.cu_seqlens[b + 1] - first_row;
    if (rows == 0) return;
    float* dx = args.dx + first_row * dim;
    if (args.mode == Pooling::max) {
        spread_to_largest(dx, dy, args.x + first_row * args.ldx, args.ldx, rows, dim);
        return;
    }
    const float length = static_cast<float>(rows);
    for (i64 row = 0; row < rows; ++row) {
        bool takes = true;
        float share = 1.0f, divisor = 1.0f;
        switch (args.mode) {
            case Pooling::mean: divisor = length; break;
            case Pooling::mean_sqrt_len: divisor = __builtin_sqrtf(length); break;
            case Pooling::weighted_mean:
                share = static_cast<float>(row + 1);
                divisor = length * (length + 1.0f) / 2.0f;
                break;
            case Pooling::cls: takes = row == 0; break;
            case Pooling::last: takes = row == rows - 1; break;
            case Pooling::max: break;
        }
        const vf factor = set1(share / divisor);
        for_vectors(dim,
                    [&](i64 i, i64 n) { store_n(dx + row * dim + i, takes ? load_n(dy + i, n) * factor : zero(), n); });
    }
}

// f(b) for every sequence, by several threads. The grain assumes sequences of mean length.
template <typename Args, typename F>
FASTATTN_INLINE void for_sequences(const Args& args, const F& f) {
    const i64 tokens = args.batch > 0 ? args.cu_seqlens[args.batch] : 0;
    for_rows(args.batch, args.dim * (tokens / greater(1, args.batch) + 1), f);
}

}  // namespace

void pooling_forward(const PoolingForward& args) {
    for_sequences(args, [&](i64 b) { pool(args, b); });
}

void pooling_backward(const PoolingBackward& args) {
    for_sequences(args, [&](i64 b) { spread(args, b); });
}

}  // namespace fastattn::FASTATTN_ISA
