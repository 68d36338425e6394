// Shared by the kernels that work row by row.
#pragma once

#include "../parallel.h"
#include "../simd/simd.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Rows per piece of a parallel loop: enough floats to be worth passing to another thread.
FASTATTN_INLINE i64 row_grain(i64 dim) { return greater(1, 32768 / greater(1, dim)); }

// f(row) for every row, by several threads.
template <typename F>
FASTATTN_INLINE void for_rows(i64 rows, i64 dim, const F& f) {
    parallel_for(rows, row_grain(dim), [&](i64 begin, i64 end, float*) {
        for (i64 row = begin; row < end; ++row) f(row);
    });
}

// The sums of f(i, n) over a row, one for each lane. The order depends only on the length and the instruction set: four
// interleaved partial sums, then the remaining vectors; f returns 0 in lanes that do not exist. V is vf, or vf2 for two
// sums at once.
template <typename V, typename F>
FASTATTN_INLINE V lane_sums(i64 dim, F f) {
    V s0 = constant<V>(0.0f), s1 = s0, s2 = s0, s3 = s0;
    i64 i = 0;
    for (; i + 4 * W <= dim; i += 4 * W) {
        s0 = s0 + f(i, i64{W});
        s1 = s1 + f(i + W, i64{W});
        s2 = s2 + f(i + 2 * W, i64{W});
        s3 = s3 + f(i + 3 * W, i64{W});
    }
    for (; i + W <= dim; i += W) s0 = s0 + f(i, i64{W});
    if (i < dim) s1 = s1 + f(i, dim - i);
    return (s0 + s1) + (s2 + s3);
}

template <typename F>
FASTATTN_INLINE float row_sum(i64 dim, F f) {
    return reduce_add(lane_sums<vf>(dim, f));
}

// The largest f(i, n) over a row, -inf for an empty row; f returns -inf in lanes that do not exist.
template <typename F>
FASTATTN_INLINE float row_max(i64 dim, F f) {
    vf m0 = set1(-__builtin_inff()), m1 = m0;
    i64 i = 0;
    for (; i + 2 * W <= dim; i += 2 * W) {
        m0 = max(f(i, i64{W}), m0);
        m1 = max(f(i + W, i64{W}), m1);
    }
    for (; i < dim; i += W) m0 = max(f(i, lesser(W, dim - i)), m0);
    return reduce_max(max(m0, m1));
}

// A vector of x, `value` in the lanes that do not exist.
FASTATTN_INLINE vf load_or(const float* x, i64 n, float value) {
    return n == W ? load(x) : select(first(n), load_first(x, n), set1(value));
}

constexpr i64 streamed_from = 1 << 23;  // floats of a result: 32 MB

// fill_floats. A result larger than the caches is streamed past them: none of it would stay in the cache, and a line
// that is written whole need not be read first.
template <typename F>
FASTATTN_INLINE void fill_row(bool streamed, float* y, i64 count, F f) {
    if (!streamed) return fill_floats(y, 0, count, f);
    constexpr i64 bytes = W * i64{sizeof(float)};
    const i64 misaligned = static_cast<i64>(reinterpret_cast<std::uintptr_t>(y) % bytes);
    const i64 head = lesser(count, (bytes - misaligned) % bytes / i64{sizeof(float)});
    fill_floats(y, 0, head, f);
    i64 i = head;
    for (; i + 2 * W <= count; i += 2 * W) {
        const vf2 v = f(At2{i});
        stream(y + i, v.a);
        stream(y + i + W, v.b);
    }
    fill_floats(y, i, count, f);
    stream_fence();
}

// sum (+)= the rows of `block_sums` [blocks, dim], stride ld, in order.
FASTATTN_INLINE void add_block_sums(float* sum, const float* block_sums, i64 ld, i64 blocks, i64 dim, bool add) {
    for_vectors(dim, [&](i64 i, i64 n) {
        vf total = zero();
        for (i64 block = 0; block < blocks; ++block) total = total + load_n(block_sums + block * ld + i, n);
        store_n(sum + i, add ? load_n(sum + i, n) + total : total, n);
    });
}

struct Moments {
    float mean, rstd;
};

// y = (x - mean) * rstd * weight + bias; y may be x. Prefetches the row at `next`.
FASTATTN_INLINE Moments normalize_row(float* y, const float* x, const float* weight, const float* bias, i64 dim,
                                      float eps, const float* next) {
    const float length = static_cast<float>(dim);
    const float mean = row_sum(dim, [&](i64 i, i64 n) { return load_n(x + i, n); }) / length;
    const vf center = set1(mean);
    const float square = row_sum(dim, [&](i64 i, i64 n) {
        __builtin_prefetch(y + i, 1);
        __builtin_prefetch(next + i);
        const vf d = load_or(x + i, n, mean) - center;
        return d * d;
    });
    const float rstd = 1.0f / __builtin_sqrtf(square / length + eps);
    const vf scale = set1(rstd);
    const auto write = [&](auto f) {
        for_vectors(dim, [&](i64 i, i64 n) { store_n(y + i, f((load_n(x + i, n) - center) * scale, i, n), n); });
    };
    if (weight && bias)  // Clang would ask in each step
        write([&](vf z, i64 i, i64 n) { return z * load_n(weight + i, n) + load_n(bias + i, n); });
    else if (weight)
        write([&](vf z, i64 i, i64 n) { return z * load_n(weight + i, n); });
    else if (bias)
        write([&](vf z, i64 i, i64 n) { return z + load_n(bias + i, n); });
    else
        write([](vf z, i64, i64) { return z; });
    return {mean, rstd};
}

// f(row, floats) for every row, or for many at once if there are no gaps between them.
template <typename Args, typename F>
FASTATTN_INLINE void for_runs(const Args& args, bool gapless, const F& f) {
    parallel_for(args.rows, row_grain(args.dim), [&](i64 begin, i64 end, float*) {
        if (gapless) return f(begin, (end - begin) * args.dim);
        for (i64 row = begin; row < end; ++row) f(row, args.dim);
    });
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
