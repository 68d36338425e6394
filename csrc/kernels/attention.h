// Shared by the two passes of scaled_dot_product_attention.cpp: where a head's rows are, and which keys they see.
#pragma once

#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"
#include "random.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr float inf = __builtin_inff();

// Scores are kept in units of ln 2 (queries are also scaled by log2 e), so the softmax only needs powers of two.
constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

using Strides = ScaledDotProductAttention::Strides;

// One head of one sequence.
struct Head {
    const float *q, *k, *v;
    const char* mask;
    i64 len_q, len_k;
    i64 position;                 // of query 0
    i64 first_lse, first_weight;  // where softmax_lse and attn_weights have its row 0
    i64 b, h, q_first, k_first;

    i64 queries_at(const Strides& s) const { return b * s.batch + q_first * s.row + h * s.head; }
    i64 keys_at(const Strides& s) const { return b * s.batch + k_first * s.row + h * s.head; }
};

FASTATTN_INLINE Head find_head(const ScaledDotProductAttention& args, i64 b, i64 h) {
    const bool ragged = args.cu_seqlens_q != nullptr;
    Head head;
    head.b = ragged ? 0 : b;
    head.h = h;
    head.q_first = ragged ? args.cu_seqlens_q[b] : 0;
    head.k_first = ragged ? args.cu_seqlens_k[b] : 0;
    head.len_q = ragged ? args.cu_seqlens_q[b + 1] - head.q_first : args.seqlen_q;
    head.len_k = ragged ? args.cu_seqlens_k[b + 1] - head.k_first : args.seqlen_k;
    head.position = args.top_left ? 0 : head.len_k - head.len_q;
    head.first_lse = ragged ? h * args.total_q + head.q_first : (b * args.heads + h) * args.seqlen_q;
    head.first_weight = (b * args.heads + h) * args.seqlen_q * args.seqlen_k;
    head.q = args.q + head.queries_at(args.q_stride);
    head.k = args.k + head.keys_at(args.k_stride);
    head.v = args.v + head.keys_at(args.v_stride);
    head.mask = nullptr;
    if (args.mask) {
        const i64 size = args.mask_kind == MaskKind::boolean ? sizeof(bool) : sizeof(float);
        head.mask = static_cast<const char*>(args.mask) + (b * args.mask_stride[0] + h * args.mask_stride[1]) * size;
    }
    return head;
}

// Of the keys [first, first + keys), a row sees those from first_visible to visible_keys, counted from `first`.
FASTATTN_INLINE i64 first_visible(const ScaledDotProductAttention& args, const Head& head, i64 row, i64 first,
                                  i64 keys) {
    return greater(0, lesser(keys, row + head.position - args.left - first));
}

FASTATTN_INLINE i64 visible_keys(const ScaledDotProductAttention& args, const Head& head, i64 row, i64 first,
                                 i64 keys) {
    return greater(0, lesser(keys, row + head.position + args.right - first + 1));
}

// Where the work on keys begins of which the first `hidden` are seen by no row: the sums do not depend on it.
FASTATTN_INLINE i64 skipped_keys(i64 hidden) { return hidden / (2 * panel_width) * (2 * panel_width); }
static_assert(2 * panel_width % (2 * W) == 0, "softmax_step sums two vectors at a time");

FASTATTN_INLINE bool is_limited(const ScaledDotProductAttention& args) {
    return args.left < args.no_limit || args.right < args.no_limit;
}

// Rows of keys and values that are fetched into the cache while others are worked on, or null.
struct Ahead {
    const float *k, *v;
    i64 ld_k, ld_v;
};

// Rows of k or v, [keys][dim], as panels of B = k^T. Meanwhile as many rows `ahead` are fetched, few at a time: what
// does not fit into the queue for memory is dropped.
FASTATTN_INLINE void pack_keys(float* panels, const float* k, i64 ld, i64 keys, i64 dim, const Ahead& ahead = {}) {
    for (i64 j = 0; j < keys; j += panel_width) {
        const i64 columns = lesser(panel_width, keys - j);
        if (ahead.k)
            pack_panel(panels + j * dim, k + j * ld, ld, columns, dim, [&](i64 row, i64 i) {
                __builtin_prefetch(ahead.k + (j + row) * ahead.ld_k + i, 0, 2);
                __builtin_prefetch(ahead.v + (j + row) * ahead.ld_v + i, 0, 2);
            });
        else
            pack_panel(panels + j * dim, k + j * ld, ld, columns, dim);
    }
}

// B = v, in panels or where it is: column c of row j is at[c / 16 * panel_stride + j * row_stride + c % 16].
struct Values {
    const float* at;
    i64 panel_stride, row_stride;
    Values from(i64 row) const { return {at + row * row_stride, panel_stride, row_stride}; }
};

FASTATTN_INLINE Values panels_of_values(const float* panels, i64 rows) {
    return {panels, rows * panel_width, panel_width};
}

// The same rows as panels of B = v.
FASTATTN_INLINE void pack_values(float* panels, const float* v, i64 ld, i64 keys, i64 dim) {
    for (i64 c = 0; c < dim; c += panel_width)
        copy_panel(panels + c * keys, v + c, ld, lesser(panel_width, dim - c), keys);
}

FASTATTN_INLINE void scale_rows(float* to, const float* from, i64 ld, i64 rows, i64 dim, float factor) {
    for (i64 row = 0; row < rows; ++row)
        for_vectors(
            dim, [&](i64 i, i64 n) { store_n(to + row * dim + i, load_n(from + row * ld + i, n) * set1(factor), n); });
}

// scores[r][j] = a[r] . key j, in tiles; whole panels are written.
FASTATTN_INLINE void multiply_keys(float* scores, i64 ld, const float* a, i64 lda, i64 rows, const float* panels,
                                   i64 keys, i64 dim) {
    Tile t{};
    t.a = a;
    t.lda = lda;
    t.b = panels;
    t.panel_stride = dim * panel_width;
    t.depth = dim;
    t.ahead = t.ahead_last = t.panel_stride;
    t.c = scores;
    t.ldc = ld;
    t.columns = round_up(keys, panel_width);
    multiply_block(t, rows, [](i64, i64) {});
}

// c[r] (+)= the sum over `depth` of a[r][depth] times row `depth` of the values, or of a[depth][r] by columns.
template <LayoutA Layout>
FASTATTN_INLINE void multiply_values(float* c, i64 width, const float* a, i64 lda, i64 rows, const Values& values,
                                     i64 depth, bool resume) {
    Tile t{};
    t.a = a;
    t.lda = lda;
    t.b = values.at;
    t.panel_stride = values.panel_stride;
    t.depth = depth;
    t.ahead = t.ahead_last = t.panel_stride;
    t.c = c;
    t.ldc = width;
    t.columns = width;
    t.resume = resume;
    multiply_block<Layout>(t, rows, [](i64, i64) {});
}

template <int R>
constexpr int vectors_in_place = vectors(R) < 64 / W ? vectors(R) : 64 / W;  // few heads are wider than 64

// The same for values in place, and at most common_rows rows of `a`.
template <int R = common_rows>
FASTATTN_INLINE void multiply_values_in_place(float* c, i64 width, const float* a, i64 lda, i64 rows,
                                              const Values& values, i64 depth, bool resume) {
    if constexpr (R > 1)
        if (rows < R) return multiply_values_in_place<R - 1>(c, width, a, lda, rows, values, depth, resume);
    constexpr i64 columns = vectors_in_place<R> * W;
    Tile t{};
    t.a = a;
    t.lda = lda;
    t.panel_stride = values.panel_stride;
    t.row_stride = values.row_stride;
    t.depth = depth;
    t.ldc = width;
    t.resume = resume;
    for (i64 column = 0; column < width; column += columns) {
        t.b = values.at + column;
        t.c = c + column;
        t.columns = lesser(columns, width - column);
        multiply_tile<R, vectors_in_place<R>, false, false>(t);
    }
}

// Adds the mask to the scores of a row and `keys` keys from `first`; `bias` is scratch for as many floats.
FASTATTN_INLINE void add_mask(const ScaledDotProductAttention& args, const Head& head, float* bias, float* scores,
                              i64 row, i64 first, i64 keys) {
    const i64 at = row * args.mask_stride[2] + first * args.mask_stride[3];
    const i64 step = args.mask_stride[3];
    if (args.mask_kind == MaskKind::boolean) {
        const char* mask = head.mask + at;  // any byte but 0 is True, as in NumPy
        for (i64 j = 0; j < keys; ++j) bias[j] = mask[j * step] ? 0.0f : -inf;
    } else {
        const float* mask = reinterpret_cast<const float*>(head.mask) + at;
        for (i64 j = 0; j < keys; ++j) bias[j] = mask[j * step];
    }
    const vf masked = set1(-inf), least = set1(-3.40282347e38f);
    for (i64 j = 0; j < keys; j += W) {
        const vf b = load_n(bias + j, lesser(W, keys - j));
        // A finite bias masks nothing, not even the least float in other units.
        const vf sum = max(least, fma(b, set1(log2_e), load(scores + j)));
        store(scores + j, select(equal(b, masked), masked, sum));
    }
}

// biases[i] = position_bias at the distance first + i, for the scores.
FASTATTN_INLINE void spread_bias(const ScaledDotProductAttention& args, const Head& head, float* biases, i64 first,
                                 i64 count) {
    const i64 n = args.max_distance;
    const float* table = args.position_bias + n * args.heads + head.h;
    for (i64 i = 0; i < count; ++i) biases[i] = table[greater(-n, lesser(n, first + i)) * args.heads] * log2_e;
}

// Adds mask and bias to the scores of a row and `keys` keys from `first`, and hides those before its window.
FASTATTN_INLINE void finish_scores(const ScaledDotProductAttention& args, const Head& head, float* mask,
                                   const float* biases, float* scores, i64 row, i64 first, i64 keys) {
    if (biases)
        for (i64 j = 0; j < keys; j += W) store(scores + j, load(scores + j) + load(biases + j));
    if (head.mask) add_mask(args, head, mask, scores, row, first, keys);
    for_vectors(first_visible(args, head, row, first, keys), [&](i64 j, i64 n) { store_n(scores + j, set1(-inf), n); });
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
