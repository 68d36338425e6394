#include "../parallel.h"
#include "random.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// t = dropout(x) + residual, the input of the LayerNorm
struct Sum {
    const float* x;
    const float* residual;       // or null
    const float* next_residual;  // to prefetch; without a residual, the next row of x
    bool drops;
    DropoutRow dropout;

    template <typename Args>
    Sum(const Args& args, i64 row)
        : x(args.x + row * args.ldx),
          residual(args.residual ? args.residual + row * args.ldr : nullptr),
          next_residual(residual ? residual + args.ldr : x + args.ldx),
          drops(args.dropout.p > 0),
          dropout(dropout_row(args.dropout, row)) {}

    // f(i, n, t) for each vector; x alone is not a sum. Clang would ask in each step which sum it is.
    template <typename F>
    void for_each(i64 dim, F f) const {
        const auto dropped = [&](i64 i, i64 n) { return drop(dropout, load_n(x + i, n), i); };
        const auto visit = [&](auto t) { for_vectors(dim, [&](i64 i, i64 n) { f(i, n, t(i, n)); }); };
        if (!drops)
            visit([&](i64 i, i64 n) { return load_n(x + i, n) + load_n(residual + i, n); });
        else if (residual)
            visit([&](i64 i, i64 n) { return dropped(i, n) + load_n(residual + i, n); });
        else
            visit(dropped);
    }
};

// With z = (t - mean) rstd and g = dy weight: dresidual = dt = rstd (g - mean(g) - z mean(g z)), and dx is dropout of
// dt. dy z and dy are added to the two rows of `sums`, if given. `scratch` has room for one row.
FASTATTN_INLINE void backward_row(const LayerNormBackward& args, i64 row, const float* weight, float* scratch,
                                  float* sums) {
    const i64 dim = args.dim;
    const float* dy = args.dy + row * args.lddy;
    const Sum sum(args, row);
    const float* t = sum.x;
    if (sum.residual || sum.drops) {
        sum.for_each(dim, [&](i64 i, i64 n, vf v) { store_n(scratch + i, v, n); });
        t = scratch;
    }
    float* const dx = args.dx ? args.dx + row * dim : nullptr;
    float* const dt = args.dresidual ? args.dresidual + row * dim : dx ? dx : scratch;
    const vf mean = set1(args.mean[row]), rstd = set1(args.rstd[row]);
    const vf2 both = lane_sums<vf2>(dim, [&](i64 i, i64 n) {
        __builtin_prefetch(dt + i, 1);
        const vf g = load_n(dy + i, n) * load_n(weight + i, n);
        return vf2{g, g * ((load_n(t + i, n) - mean) * rstd)};
    });
    const float length = static_cast<float>(dim);
    const vf mean_g = set1(reduce_add(both.a) / length), mean_gz = set1(reduce_add(both.b) / length);
    for_vectors(dim, [&](i64 i, i64 n) {
        __builtin_prefetch(dy + args.lddy + i);
        __builtin_prefetch(sum.x + args.ldx + i);
        __builtin_prefetch(sum.next_residual + i);
        const vf d = load_n(dy + i, n), z = (load_n(t + i, n) - mean) * rstd;
        store_n(dt + i, rstd * (d * load_n(weight + i, n) - mean_g - z * mean_gz), n);
        if (sums) {
            store_n(sums + i, load_n(sums + i, n) + d * z, n);
            store_n(sums + dim + i, load_n(sums + dim + i, n) + d, n);
        }
    });
    if (dx && sum.drops)
        fill_floats(dx, 0, dim, [&](auto at) { return drop(sum.dropout, at(dt), at.i); });
    else if (dx && dx != dt)
        fill_floats(dx, 0, dim, [&](auto at) { return at(dt); });
}

// `scratch` has room for two rows.
void backward_blocks(const LayerNormBackward& args, i64 begin, i64 end, float* scratch) {
    const i64 dim = args.dim;
    const float* weight = args.weight;
    if (!weight) {
        for_vectors(dim, [&](i64 i, i64 n) { store_n(scratch + dim + i, set1(1.0f), n); });
        weight = scratch + dim;
    }
    for (i64 block = begin; block < end; ++block) {
        float* const sums = args.block_sums ? args.block_sums + block * 2 * dim : nullptr;
        if (sums) for_vectors(2 * dim, [&](i64 i, i64 n) { store_n(sums + i, zero(), n); });
        const i64 last = lesser(args.rows, (block + 1) * sum_block);
        for (i64 row = block * sum_block; row < last; ++row) backward_row(args, row, weight, scratch, sums);
    }
}

}  // namespace

void layer_norm_forward(const LayerNormForward& args) {
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* y = args.y + row * args.ldy;
        const Sum t(args, row);
        const float* source = t.x;
        if (t.residual || t.drops) {
            t.for_each(args.dim, [&](i64 i, i64 n, vf v) {
                __builtin_prefetch(t.next_residual + i);
                store_n(y + i, v, n);
            });
            source = y;
        }
        const Moments moments = normalize_row(y, source, args.weight, args.bias, args.dim, args.eps, t.x + args.ldx);
        if (args.mean) args.mean[row] = moments.mean;
        if (args.rstd) args.rstd[row] = moments.rstd;
    });
}

void layer_norm_backward(const LayerNormBackward& args) {
    const i64 blocks = sum_blocks(args.rows), dim = args.dim;
    parallel_for(
        blocks, greater(1, row_grain(dim) / sum_block),
        [&](i64 begin, i64 end, float* scratch) { backward_blocks(args, begin, end, scratch); }, 2 * dim);
    if (args.dweight) add_block_sums(args.dweight, args.block_sums, 2 * dim, blocks, dim, true);
    if (args.dbias) add_block_sums(args.dbias, args.block_sums + dim, 2 * dim, blocks, dim, true);
}

}  // namespace fastattn::FASTATTN_ISA
