// Attention in tiles with a running maximum and sum (online softmax, as in flash-attention: arXiv 2205.14135).
//
// What a query row computes depends on its own sequence only: key blocks are counted from the sequence's first key, a
// key that is masked or beyond the end adds exactly nothing, and every sum keeps its order whatever follows the last
// visible key.
#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 key_block = 256;        // fixed: it decides the order of the sums
constexpr i64 max_query_block = 512;  // rows of one item, for which keys and values are packed once; free
constexpr i64 min_query_block = 64;
constexpr i64 query_group = 4 * common_rows;  // at most so many rows share a panel while it is close; free to change
constexpr float inf = __builtin_inff();

// Scores are kept in units of ln 2 (queries are scaled by log2 e as well), so that a power of two is all they need.
constexpr float log2_e = 1.44269504f, ln_2 = 0.693147181f;

// One head of one sequence, and the scratch of the thread that works on it.
struct Head {
    const float *q, *k, *v;
    float* out;
    float* lse;      // [len_q] or null
    float* weights;  // [len_q, row stride ldw] or null
    const char* mask;
    i64 len_q, len_k, causal_offset;  // a causal row i sees keys up to i + causal_offset

    float *queries, *key_panels, *value_panels, *scores, *context, *largest, *sum, *bias;
};

struct Layout {  // offsets into the scratch, in floats
    Layout(i64 dim, i64 query_block)
        : queries(0),
          key_panels(queries + query_block * round_up(dim, 16)),
          value_panels(key_panels + key_block * dim),
          scores(value_panels + key_block * round_up(dim, 16)),
          context(scores + query_group * key_block),
          largest(context + query_block * round_up(dim, 16)),
          sum(largest + query_block),
          bias(sum + query_block),
          floats(bias + key_block) {}
    i64 queries, key_panels, value_panels, scores, context, largest, sum, bias, floats;
};

void pack_keys(const ScaledDotProductAttentionForward& args, const Head& head, i64 first, i64 keys) {
    for (i64 j = 0; j < keys; j += panel_width)
        pack_panel(head.key_panels + j * args.head_dim, head.k + (first + j) * args.k_stride.row, args.k_stride.row,
                   lesser(panel_width, keys - j), args.head_dim);
}

void pack_values(const ScaledDotProductAttentionForward& args, const Head& head, i64 first, i64 keys) {
    for (i64 c = 0; c < args.head_dim; c += panel_width) {
        float* panel = head.value_panels + c * keys;
        const float* v = head.v + first * args.v_stride.row + c;
        const i64 columns = args.head_dim - c;
        for (i64 j = 0; j < keys; ++j, v += args.v_stride.row, panel += panel_width) {
#pragma GCC unroll 4
            for (i64 i = 0; i < panel_width; i += W)
                store(panel + i, columns >= panel_width ? load(v + i)
                                 : columns > i          ? load_first(v + i, lesser(W, columns - i))
                                                        : zero());
        }
    }
}

bool all_finite(const float* x, i64 count) {  // count is a multiple of the panel width
    vf zeros = zero();                        // 0 * x summed up: NaN as soon as one x is not finite
    for (i64 i = 0; i < count; i += W) zeros = zeros + load(x + i) * zero();
    return reduce_add(zeros) == 0.0f;
}

// scores[r][j] = query (row + r) . key (first + j), in tiles; whole panels are written.
void compute_scores(const ScaledDotProductAttentionForward& args, const Head& head, i64 row, i64 rows, i64 keys) {
    Tile t{};
    t.a = head.queries + row * args.head_dim;
    t.lda = args.head_dim;
    t.b = head.key_panels;
    t.panel_stride = args.head_dim * panel_width;
    t.depth = args.head_dim;
    t.ahead = t.panel_stride;
    t.c = head.scores;
    t.ldc = key_block;
    t.columns = round_up(keys, panel_width);
    multiply_block(t, rows, [](i64, i64) {});
}

void add_mask(const ScaledDotProductAttentionForward& args, const Head& head, float* scores, i64 row, i64 first,
              i64 keys) {
    const i64 at = row * args.mask_stride[2] + first * args.mask_stride[3];
    const i64 step = args.mask_stride[3];
    if (args.mask_kind == MaskKind::boolean) {
        const bool* mask = reinterpret_cast<const bool*>(head.mask) + at;
        for (i64 j = 0; j < keys; ++j) head.bias[j] = mask[j * step] ? 0.0f : -inf;
    } else {
        const float* mask = reinterpret_cast<const float*>(head.mask) + at;
        for (i64 j = 0; j < keys; ++j) head.bias[j] = mask[j * step];
    }
    const vf masked = set1(-inf), least = set1(-3.40282347e38f);
    for (i64 j = 0; j < keys; j += W) {
        const vf bias = load_n(head.bias + j, lesser(W, keys - j));
        // A finite bias masks nothing, not even the least float in other units.
        const vf sum = max(least, fma(bias, set1(log2_e), load(scores + j)));
        store(scores + j, select(equal(bias, masked), masked, sum));
    }
}

FASTATTN_INLINE i64 visible_keys(const Head& head, bool causal, i64 row, i64 first, i64 keys) {
    return causal ? greater(0, lesser(keys, row + head.causal_offset - first + 1)) : keys;
}

FASTATTN_INLINE float exp2_scalar(float x) { return reduce_max(exp2_nonpositive(set1(x))); }

// Two vectors of scores, of which the first `visible` count, as 2^(score - shift), each into its own sum.
FASTATTN_INLINE void exp2_scores(float* scores, i64 visible, vf shift, vf2& sums) {
    vf2 e = {load_or(scores, greater(0, lesser(W, visible)), -inf),
             load_or(scores + W, greater(0, lesser(W, visible - W)), -inf)};
    e = exp2_nonpositive(e - vf2{shift, shift});
    store2(scores, e);
    sums = sums + e;
}

// scores -> 2^(scores - maximum), the running maximum and sum brought up to date, the context rescaled to match.
// The first `visible` scores count, up to `keys` are written.
void softmax_step(const Head& head, float* scores, float* context, i64 dim, i64 row, i64 visible, i64 keys) {
    vf m0 = set1(-inf), m1 = m0;
    i64 j = 0;
    for (; j + 2 * W <= visible; j += 2 * W) {
        m0 = max(load(scores + j), m0);
        m1 = max(load(scores + j + W), m1);
    }
    for (; j < visible; j += W) m0 = max(load_or(scores + j, lesser(W, visible - j), -inf), m0);
    const float before = head.largest[row];
    const float block = reduce_max(max(m0, m1));
    const float largest = block > before ? block : before;
    const float shift = largest == -inf ? 0.0f : largest;  // nothing visible so far
    vf2 sums = {zero(), zero()};  // by the key's place in the block, not by how many keys there are
    for (j = 0; j + 2 * W <= visible; j += 2 * W) exp2_scores(scores + j, 2 * W, set1(shift), sums);
    for (; j < keys; j += 2 * W) exp2_scores(scores + j, visible - j, set1(shift), sums);
    const float scale = before == -inf ? 1.0f : exp2_scalar(before - shift);
    head.largest[row] = largest;
    head.sum[row] = head.sum[row] * scale + reduce_add(sums.a + sums.b);
    if (scale != 1.0f)
        for (i64 i = 0; i < dim; i += W) store(context + i, load(context + i) * set1(scale));
}

// context += scores V, skipping keys of weight 0: what the tiles do, but 0 * NaN stays out of it.
void add_values_one_by_one(const Head& head, const float* scores, float* context, i64 dim, i64 keys, i64 packed_keys,
                           bool resume) {
    for (i64 c = 0; c < dim; c += W) {
        const float* values = head.value_panels + c / panel_width * panel_width * packed_keys + c % panel_width;
        vf sum = resume ? load(context + c) : zero();
        for (i64 j = 0; j < keys; ++j)
            if (scores[j] != 0.0f) sum = fma(set1(scores[j]), load(values + j * panel_width), sum);
        store(context + c, sum);
    }
}

// Rows of a group when `rows` of them are cut into nearly equal groups.
FASTATTN_INLINE i64 rows_per_group(i64 rows) {
    const i64 groups = (rows + query_group - 1) / query_group;
    return (rows + groups - 1) / groups;
}

// Rows [begin, end) of one head.
void attend(const ScaledDotProductAttentionForward& args, const Head& head, i64 begin, i64 end) {
    const i64 dim = args.head_dim, width = round_up(dim, panel_width);
    const vf scale = set1(args.scale * log2_e);
    const i64 group = rows_per_group(end - begin);
    for (i64 row = begin; row < end; ++row) {
        const float* q = head.q + row * args.q_stride.row;
        float* scaled = head.queries + (row - begin) * dim;
        for_vectors(dim, [&](i64 i, i64 n) { store_n(scaled + i, load_n(q + i, n) * scale, n); });
        head.largest[row - begin] = -inf;
        head.sum[row - begin] = 0.0f;
    }
    const i64 last_key = visible_keys(head, args.causal, end - 1, 0, head.len_k);
    for (i64 first = 0; first < last_key; first += key_block) {
        const i64 packed = lesser(key_block, last_key - first);
        pack_keys(args, head, first, packed);
        pack_values(args, head, first, packed);
        const bool plain = (!args.causal && !args.mask) || all_finite(head.value_panels, width * packed);
        for (i64 row = begin; row < end; row += group) {
            const i64 rows = lesser(group, end - row);
            const i64 keys = visible_keys(head, args.causal, row + rows - 1, first, packed);
            if (keys == 0) continue;
            compute_scores(args, head, row - begin, rows, keys);
            for (i64 r = 0; r < rows; ++r) {
                float* scores = head.scores + r * key_block;
                if (head.mask) add_mask(args, head, scores, row + r, first, keys);
                softmax_step(head, scores, head.context + (row - begin + r) * width, width, row - begin + r,
                             visible_keys(head, args.causal, row + r, first, packed), keys);
            }
            float* context = head.context + (row - begin) * width;
            if (!plain) {
                for (i64 r = 0; r < rows; ++r)
                    add_values_one_by_one(head, head.scores + r * key_block, context + r * width, width, keys, packed,
                                          first > 0);
                continue;
            }
            Tile t{};
            t.a = head.scores;
            t.lda = key_block;
            t.b = head.value_panels;
            t.panel_stride = packed * panel_width;
            t.depth = keys;
            t.ahead = t.panel_stride;
            t.c = context;
            t.ldc = width;
            t.columns = width;
            t.resume = first > 0;
            multiply_block(t, rows, [](i64, i64) {});
        }
    }
    for (i64 row = begin; row < end; ++row) {
        const float sum = head.sum[row - begin];
        const vf weight = set1(1.0f / sum);
        const float* context = head.context + (row - begin) * width;
        float* out = head.out + row * args.out_stride.row;
        if (sum == 0.0f)  // no key at all
            for_vectors(dim, [&](i64 i, i64 n) { store_n(out + i, zero(), n); });
        else
            for_vectors(dim, [&](i64 i, i64 n) { store_n(out + i, load(context + i) * weight, n); });
        if (head.lse) head.lse[row] = sum == 0.0f ? -inf : head.largest[row - begin] * ln_2 + __builtin_logf(sum);
    }
}

// The probabilities themselves, by a second pass over the keys with the final maximum and sum.
void write_weights(const ScaledDotProductAttentionForward& args, const Head& head, i64 begin, i64 end) {
    const i64 group = rows_per_group(end - begin);
    for (i64 first = 0; first < head.len_k; first += key_block) {
        const i64 packed = lesser(key_block, head.len_k - first);
        pack_keys(args, head, first, packed);
        for (i64 row = begin; row < end; row += group) {
            const i64 rows = lesser(group, end - row);
            compute_scores(args, head, row - begin, rows, packed);
            for (i64 r = 0; r < rows; ++r) {
                float* scores = head.scores + r * key_block;
                if (head.mask) add_mask(args, head, scores, row + r, first, packed);
                const i64 visible = visible_keys(head, args.causal, row + r, first, packed);
                const float largest = head.largest[row - begin + r], sum = head.sum[row - begin + r];
                const vf shift = set1(largest == -inf ? 0.0f : largest), divisor = set1(sum == 0.0f ? 1.0f : sum);
                float* weights = head.weights + (row + r) * args.seqlen_k + first;
                for_vectors(visible, [&](i64 j, i64 n) {
                    store_n(weights + j, exp2_nonpositive(load_n(scores + j, n) - shift) / divisor, n);
                });
            }
        }
    }
}

// The sequence that token `row` belongs to: the last one that begins at or before it.
i64 find_sequence(const std::int32_t* cu_seqlens, i64 batch, i64 row) {
    i64 low = 0, high = batch;
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        (cu_seqlens[middle] <= row ? low : high) = middle;
    }
    return low;
}

struct Plan {
    const ScaledDotProductAttentionForward* args;
    i64 query_block;
};

void attention_item(const Plan& plan, i64 item, float* scratch) {
    const ScaledDotProductAttentionForward& args = *plan.args;
    const i64 query_block = plan.query_block;
    const i64 h = item % args.heads;
    const i64 begin = item / args.heads * query_block;
    const i64 end = lesser(args.total_q, begin + query_block);
    const bool ragged = args.cu_seqlens_q != nullptr;
    const Layout layout(args.head_dim, query_block);

    Head head;
    head.queries = scratch + layout.queries;
    head.key_panels = scratch + layout.key_panels;
    head.value_panels = scratch + layout.value_panels;
    head.scores = scratch + layout.scores;
    head.context = scratch + layout.context;
    head.largest = scratch + layout.largest;
    head.sum = scratch + layout.sum;
    head.bias = scratch + layout.bias;

    i64 b = ragged ? find_sequence(args.cu_seqlens_q, args.batch, begin) : begin / args.seqlen_q;
    for (i64 row = begin; row < end; ++b) {  // every sequence that has rows in this block
        const i64 q_first = ragged ? args.cu_seqlens_q[b] : b * args.seqlen_q;
        head.len_q = ragged ? args.cu_seqlens_q[b + 1] - q_first : args.seqlen_q;
        const i64 k_first = ragged ? args.cu_seqlens_k[b] : 0;
        head.len_k = ragged ? args.cu_seqlens_k[b + 1] - k_first : args.seqlen_k;
        head.causal_offset = args.top_left ? 0 : head.len_k - head.len_q;

        const auto offset = [&](const ScaledDotProductAttentionForward::Strides& stride, i64 ragged_first) {
            return (ragged ? ragged_first * stride.row : b * stride.batch) + h * stride.head;
        };
        head.q = args.q + offset(args.q_stride, q_first);
        head.k = args.k + offset(args.k_stride, k_first);
        head.v = args.v + offset(args.v_stride, k_first);
        head.out = args.out + offset(args.out_stride, q_first);
        head.lse = !args.softmax_lse ? nullptr
                   : ragged          ? args.softmax_lse + h * args.total_q + q_first
                                     : args.softmax_lse + (b * args.heads + h) * args.seqlen_q;
        head.weights =
            args.attn_weights ? args.attn_weights + (b * args.heads + h) * args.seqlen_q * args.seqlen_k : nullptr;
        head.mask = nullptr;
        if (args.mask) {
            const i64 size = args.mask_kind == MaskKind::boolean ? sizeof(bool) : sizeof(float);
            head.mask =
                static_cast<const char*>(args.mask) + (b * args.mask_stride[0] + h * args.mask_stride[1]) * size;
        }
        const i64 stop = lesser(end, q_first + head.len_q);
        if (stop <= row) continue;  // a sequence without queries
        attend(args, head, row - q_first, stop - q_first);
        if (head.weights) write_weights(args, head, row - q_first, stop - q_first);
        row = stop;
    }
}

}  // namespace

void scaled_dot_product_attention_forward(const ScaledDotProductAttentionForward& args) {
    // As many rows an item as leave several items for every thread.
    const i64 wanted_items = 4 * num_threads();
    i64 query_block = max_query_block;
    while (query_block > min_query_block && (args.total_q + query_block - 1) / query_block * args.heads < wanted_items)
        query_block /= 2;
    Plan plan{&args, query_block};
    const i64 blocks = (args.total_q + query_block - 1) / query_block;
    const i64 work = lesser(args.total_q, query_block) * greater(1, args.seqlen_k) * args.head_dim * 2;
    parallel_for(
        blocks * args.heads, greater(1, 65536 / greater(1, work)),
        [](void* plan, i64 begin, i64 end, void* scratch) {
            for (i64 item = begin; item < end; ++item)
                attention_item(*static_cast<Plan*>(plan), item, static_cast<float*>(scratch));
        },
        &plan, Layout(args.head_dim, query_block).floats * i64{sizeof(float)});
}

}  // namespace fastattn::FASTATTN_ISA
