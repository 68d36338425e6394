// Attention in tiles with a running maximum and sum (online softmax, as in flash-attention: arXiv 2205.14135).
//
// A query row depends only on its own sequence: key blocks are counted from the sequence's first key, a key that is
// masked or beyond the end adds exactly nothing, and the order of a sum does not depend on what follows the last
// visible key.
#include "../parallel.h"
#include "attention.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 key_block = 256;        // fixed: it decides the order of the sums
constexpr i64 max_query_block = 512;  // rows of one item, for which keys and values are packed once; free to change
constexpr i64 min_query_block = 64;
constexpr i64 few_queries = common_rows;      // of a sequence: too few to pay for packing its values; free to change
constexpr i64 query_group = 4 * common_rows;  // most rows that share a panel while it is cached; free to change

using Forward = ScaledDotProductAttentionForward;
using Backward = ScaledDotProductAttentionBackward;

// The outputs of one head, and the scratch of the thread that computes it.
struct Attend : Head {
    float* out;
    float* lse;      // [len_q] or null
    float* weights;  // [len_q, row stride seqlen_k] or null
    float *queries, *key_panels, *value_panels, *scores, *context, *largest, *sum, *mask_row, *biases;
    const Head* next;  // whose keys and values are fetched meanwhile, or null
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
          mask_row(sum + query_block),
          biases(mask_row + key_block),
          floats(biases + query_block + key_block + W) {}
    i64 queries, key_panels, value_panels, scores, context, largest, sum, mask_row, biases, floats;
};

bool all_finite(const Values& values, i64 rows, i64 width) {
    vf zeros = zero();  // 0 * x summed up: NaN as soon as one x is not finite
    for (i64 c = 0; c < width; c += W) {
        const float* x = values.at + c / panel_width * values.panel_stride + c % panel_width;
        for (i64 j = 0; j < rows; ++j) zeros = zeros + load(x + j * values.row_stride) * zero();
    }
    return reduce_add(zeros) == 0.0f;
}

FASTATTN_INLINE float exp2_scalar(float x) { return reduce_max(exp2_nonpositive(set1(x))); }

// Adds 2^(score - shift) of two vectors of scores to two sums. Only the first `visible` scores count.
FASTATTN_INLINE void exp2_scores(float* scores, i64 visible, vf shift, vf2& sums) {
    vf2 e = {load_or(scores, greater(0, lesser(W, visible)), -inf),
             load_or(scores + W, greater(0, lesser(W, visible - W)), -inf)};
    e = exp2_nonpositive(e - vf2{shift, shift});
    store2(scores, e);
    sums = sums + e;
}

// scores -> 2^(scores - maximum), the running maximum and sum brought up to date, the context rescaled to match.
// The first `visible` scores count, up to `keys` are written.
void softmax_step(const Attend& head, float* scores, float* context, i64 dim, i64 row, i64 visible, i64 keys) {
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
    vf2 sums = {zero(), zero()};  // by the key's position in the block, not by the number of keys
    for (j = 0; j + 2 * W <= visible; j += 2 * W) exp2_scores(scores + j, 2 * W, set1(shift), sums);
    for (; j < keys; j += 2 * W) exp2_scores(scores + j, visible - j, set1(shift), sums);
    const float scale = before == -inf ? 1.0f : exp2_scalar(before - shift);
    head.largest[row] = largest;
    head.sum[row] = head.sum[row] * scale + reduce_add(sums.a + sums.b);
    if (scale != 1.0f)
        for (i64 i = 0; i < dim; i += W) store(context + i, load(context + i) * set1(scale));
}

// context += scores V like the tiles, but skips keys with weight 0, so that 0 * NaN adds nothing.
void add_values_one_by_one(const Values& values, const float* scores, float* context, i64 dim, i64 keys, bool resume) {
    for (i64 c = 0; c < dim; c += W) {
        const float* x = values.at + c / panel_width * values.panel_stride + c % panel_width;
        vf sum = resume ? load(context + c) : zero();
        for (i64 j = 0; j < keys; ++j)
            if (scores[j] != 0.0f) sum = fma(set1(scores[j]), load(x + j * values.row_stride), sum);
        store(context + c, sum);
    }
}

// Rows per group if `rows` rows are split into nearly equal groups.
FASTATTN_INLINE i64 rows_per_group(i64 rows) {
    const i64 groups = (rows + query_group - 1) / query_group;
    return (rows + groups - 1) / groups;
}

// f(first, keys) for the blocks of keys, or the parts of them, that rows [begin, end) see.
template <typename F>
FASTATTN_INLINE void for_key_blocks(const Forward& args, const Attend& head, i64 begin, i64 end, const F& f) {
    const i64 last = visible_keys(args, head, end - 1, 0, head.len_k);
    i64 first = skipped_keys(first_visible(args, head, begin, 0, head.len_k));
    for (i64 next; first < last; first = next) {
        next = lesser(last, (first / key_block + 1) * key_block);
        const i64 k = first * args.k_stride.row, v = first * args.v_stride.row;
        const Ahead ahead =
            head.next ? Ahead{head.next->k + k, head.next->v + v, args.k_stride.row, args.v_stride.row} : Ahead{};
        pack_keys(head.key_panels, head.k + k, args.k_stride.row, next - first, args.head_dim, ahead);
        if (args.position_bias)
            spread_bias(args, head, head.biases, first - (end - 1 + head.position), next - first + end - begin);
        f(first, next - first);
    }
}

// The biases of a row of [.., end), for key `key` of the block and those behind it.
FASTATTN_INLINE const float* biases_of(const Forward& args, const Attend& head, i64 end, i64 row, i64 key) {
    return args.position_bias ? head.biases + (end - 1 - row) + key : nullptr;
}

// Rows [begin, end) of one head.
void attend(const Forward& args, const Attend& head, i64 begin, i64 end) {
    const i64 dim = args.head_dim, width = round_up(dim, panel_width);
    const i64 group = rows_per_group(end - begin);
    const bool in_place = end - begin <= few_queries && dim == width;
    scale_rows(head.queries, head.q + begin * args.q_stride.row, args.q_stride.row, end - begin, dim,
               args.scale * log2_e);
    for (i64 row = begin; row < end; ++row) {
        head.largest[row - begin] = -inf;
        head.sum[row - begin] = 0.0f;
    }
    for_key_blocks(args, head, begin, end, [&](i64 block, i64 packed) {
        const float* v = head.v + block * args.v_stride.row;
        if (!in_place) pack_values(head.value_panels, v, args.v_stride.row, packed, dim);
        const Values values =
            in_place ? Values{v, panel_width, args.v_stride.row} : panels_of_values(head.value_panels, packed);
        const bool plain = (!is_limited(args) && !args.mask) || all_finite(values, packed, width);
        for (i64 row = begin; row < end; row += group) {
            const i64 rows = lesser(group, end - row);
            const i64 hidden = first_visible(args, head, row, block, packed);
            const i64 visible = visible_keys(args, head, row + rows - 1, block, packed);
            if (hidden >= visible) continue;
            const i64 skipped = skipped_keys(hidden), first = block + skipped, keys = visible - skipped;
            const bool resume = first_visible(args, head, row, 0, head.len_k) < block;
            multiply_keys(head.scores, key_block, head.queries + (row - begin) * dim, dim, rows,
                          head.key_panels + skipped * dim, keys, dim);
            for (i64 r = 0; r < rows; ++r) {
                float* scores = head.scores + r * key_block;
                finish_scores(args, head, head.mask_row, biases_of(args, head, end, row + r, skipped), scores, row + r,
                              first, keys);
                softmax_step(head, scores, head.context + (row - begin + r) * width, width, row - begin + r,
                             visible_keys(args, head, row + r, first, keys), keys);
                if (args.dropout.p > 0.0) {
                    const DropoutRow dropout = dropout_row(args.dropout, head.first_lse + row + r);
                    for (i64 j = 0; j < keys; j += W) store(scores + j, drop(dropout, load(scores + j), first + j));
                }
            }
            float* context = head.context + (row - begin) * width;
            const Values seen = values.from(skipped);
            if (plain && in_place)
                multiply_values_in_place(context, width, head.scores, key_block, rows, seen, keys, resume);
            else if (plain)
                multiply_values<LayoutA::rows>(context, width, head.scores, key_block, rows, seen, keys, resume);
            else
                for (i64 r = 0; r < rows; ++r)
                    add_values_one_by_one(seen, head.scores + r * key_block, context + r * width, width, keys, resume);
        }
    });
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
void write_weights(const Forward& args, const Attend& head, i64 begin, i64 end) {
    const i64 group = rows_per_group(end - begin);
    for_key_blocks(args, head, begin, end, [&](i64 first, i64 packed) {
        for (i64 row = begin; row < end; row += group) {
            const i64 rows = lesser(group, end - row);
            multiply_keys(head.scores, key_block, head.queries + (row - begin) * args.head_dim, args.head_dim, rows,
                          head.key_panels, packed, args.head_dim);
            for (i64 r = 0; r < rows; ++r) {
                float* scores = head.scores + r * key_block;
                finish_scores(args, head, head.mask_row, biases_of(args, head, end, row + r, 0), scores, row + r, first,
                              packed);
                const i64 visible = visible_keys(args, head, row + r, first, packed);
                const float largest = head.largest[row - begin + r], sum = head.sum[row - begin + r];
                const vf shift = set1(largest == -inf ? 0.0f : largest), divisor = set1(sum == 0.0f ? 1.0f : sum);
                float* weights = head.weights + (row + r) * args.seqlen_k + first;
                for_vectors(visible, [&](i64 j, i64 n) {
                    const vf score = load_n(scores + j, n), weight = exp2_nonpositive(score - shift) / divisor;
                    store_n(weights + j, select(equal(score, set1(-inf)), zero(), weight), n);  // also beside NaN
                });
            }
        }
    });
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

// A head to be, in the scratch of Layout(head_dim, query_block).
Attend attend_in(const Forward& args, i64 query_block, float* scratch) {
    const Layout layout(args.head_dim, query_block);
    Attend head;
    head.queries = scratch + layout.queries;
    head.key_panels = scratch + layout.key_panels;
    head.value_panels = scratch + layout.value_panels;
    head.scores = scratch + layout.scores;
    head.context = scratch + layout.context;
    head.largest = scratch + layout.largest;
    head.sum = scratch + layout.sum;
    head.mask_row = scratch + layout.mask_row;
    head.biases = scratch + layout.biases;
    head.next = nullptr;
    return head;
}

// Rows [begin, end) of `where`.
void attend_at(const Forward& args, Attend& head, const Head& where, i64 begin, i64 end) {
    static_cast<Head&>(head) = where;
    head.out = args.out + head.queries_at(args.out_stride);
    head.lse = args.softmax_lse ? args.softmax_lse + head.first_lse : nullptr;
    head.weights = args.attn_weights ? args.attn_weights + head.first_weight : nullptr;
    attend(args, head, begin, end);
    if (head.weights) write_weights(args, head, begin, end);
}

// Head item % heads for a block of queries, of one sequence or of many.
void attention_item(const Forward& args, i64 query_block, i64 item, float* scratch) {
    const i64 h = item % args.heads;
    const i64 begin = item / args.heads * query_block;
    const i64 end = lesser(args.total_q, begin + query_block);
    const bool ragged = args.cu_seqlens_q != nullptr;
    Attend head = attend_in(args, query_block, scratch);
    i64 b = ragged ? find_sequence(args.cu_seqlens_q, args.batch, begin) : begin / args.seqlen_q;
    for (i64 row = begin; row < end; ++b) {  // every sequence that has rows in this block
        const Head where = find_head(args, b, h);
        const i64 first = ragged ? where.q_first : b * args.seqlen_q;
        const i64 stop = lesser(end, first + where.len_q);
        if (stop <= row) continue;  // a sequence without queries
        attend_at(args, head, where, row - first, stop - first);
        row = stop;
    }
}

// Heads [begin, end), counted through all sequences: of few queries each, so reading their keys takes the time.
void attend_few(const Forward& args, i64 begin, i64 end, float* scratch) {
    Attend head = attend_in(args, few_queries, scratch);
    Head here{}, next;
    for (i64 item = begin; item < end; ++item) {
        next = find_head(args, item / args.heads, item % args.heads);
        if (next.len_q == 0) continue;
        head.next = &next;
        if (here.len_q) attend_at(args, head, here, 0, here.len_q);
        here = next;
    }
    head.next = nullptr;
    if (here.len_q) attend_at(args, head, here, 0, here.len_q);
}

// The backward pass works on one head of one sequence at a time, so every gradient is summed in a fixed order.
constexpr i64 backward_keys = 192;                 // keys of a block,
constexpr i64 backward_queries = 8 * common_rows;  // and queries that meet them at once

struct Differentiate : Head {
    float *queries, *query_panels, *dout_panels;          // scaled queries [rows][dim]; queries and dout as values
    float *key_panels, *value_panels, *key_value_panels;  // k^T, v^T, and k as values
    float *probabilities, *dscores;                       // [rows][backward_keys]
    float *dq, *dk, *dv;                                  // [len_q], [backward_keys], [backward_keys] x width
    float *shift, *delta;                                 // [len_q]
    float* mask_row;                                      // [backward_keys]
    float *biases, *dbiases;                              // [distances], of a block
    float* dposition_bias;                                // [2 * max_distance + 1] or null
};

struct BackwardLayout {  // offsets into the scratch, in floats
    BackwardLayout(i64 dim, i64 seqlen_q) {
        const i64 width = round_up(dim, panel_width);
        const auto take = [&](i64 count) {
            const i64 begin = floats;
            floats += round_up(count, panel_width);
            return begin;
        };
        queries = take(backward_queries * dim);
        query_panels = take(backward_queries * width);
        dout_panels = take(backward_queries * width);
        key_panels = take(backward_keys * dim);
        value_panels = take(backward_keys * dim);
        key_value_panels = take(backward_keys * width);
        probabilities = take(backward_queries * backward_keys);
        dscores = take(backward_queries * backward_keys);
        dk = take(backward_keys * width);
        dv = take(backward_keys * width);
        mask_row = take(backward_keys);
        biases = take(backward_queries + backward_keys + W);
        dbiases = take(backward_queries + backward_keys + W);
        dq = take(seqlen_q * width);
        shift = take(seqlen_q);
        delta = take(seqlen_q);
    }
    i64 floats = 0;
    i64 queries, query_panels, dout_panels, key_panels, value_panels, key_value_panels, probabilities, dscores;
    i64 dk, dv, mask_row, biases, dbiases, dq, shift, delta;
};

// probabilities: scores -> dropout(p); dscores: dout v^T -> p * (dropout(dout v^T) - delta), for the `visible` keys; 0
// for the others, whatever was there.
void differentiate_scores(const Backward& args, float* probabilities, float* dscores, i64 lse_row, i64 first,
                          i64 visible, i64 keys, float shift, float delta) {
    const bool drops = args.dropout.p > 0.0;
    DropoutRow dropout{};
    if (drops) dropout = dropout_row(args.dropout, lse_row);
    const vf2 s = constant<vf2>(shift), d = constant<vf2>(delta), none = constant<vf2>(0.0f);
    const vf2 masked = constant<vf2>(-inf);  // 0 even if the others are NaN
    for (i64 j = 0; j < keys; j += 2 * W) {
        const i64 n0 = greater(0, lesser(W, visible - j)), n1 = greater(0, lesser(W, visible - j - W));
        const vf2 score = {load_or(probabilities + j, n0, -inf), load_or(probabilities + j + W, n1, -inf)};
        const vf2 p = select(equal(score, masked), none, exp2_nonpositive(score - s));
        vf2 dp = load2(dscores + j);
        store2(probabilities + j, drops ? drop(dropout, p, first + j) : p);
        if (drops) dp = drop(dropout, dp, first + j);
        const vf2 ds = p * (dp - d);
        store2(dscores + j, {select(equal(p.a, zero()), none.a, ds.a), select(equal(p.b, zero()), none.b, ds.b)});
    }
}

// c[j] += the sum over r of a[r][j] times row r of the panels like the tiles, but skips weights of 0.
void add_columns_one_by_one(float* c, i64 width, const float* a, i64 lda, i64 rows, const float* panels, i64 depth) {
    for (i64 j = 0; j < rows; ++j)
        for (i64 i = 0; i < width; i += W) {
            const float* values = panels + i / panel_width * panel_width * depth + i % panel_width;
            vf sum = load(c + j * width + i);
            for (i64 r = 0; r < depth; ++r) {
                const float weight = a[r * lda + j];
                if (weight != 0.0f) sum = fma(set1(weight), load(values + r * panel_width), sum);
            }
            store(c + j * width + i, sum);
        }
}

FASTATTN_INLINE void write_rows(float* to, i64 ld, const float* from, i64 width, i64 rows, i64 dim, float factor) {
    for (i64 row = 0; row < rows; ++row)
        for_vectors(dim, [&](i64 i, i64 n) {
            store_n(to + row * ld + i, load_n(from + row * width + i, n) * set1(factor), n);
        });
}

// Adds the gradients of the scores of queries [begin, end) and `keys` keys from `first` to the gradient of the bias.
void add_bias_gradient(const Backward& args, const Differentiate& head, i64 begin, i64 end, i64 first, i64 keys) {
    const i64 rows = end - begin, distances = rows + keys - 1, n = args.max_distance;
    for (i64 i = 0; i < distances; i += W) store(head.dbiases + i, zero());
    for (i64 r = 0; r < rows; ++r) {
        const float* dscores = head.dscores + r * backward_keys;
        float* sums = head.dbiases + (rows - 1 - r);
        for (i64 j = 0; j < keys; j += W) store(sums + j, load(sums + j) + load(dscores + j));
    }
    const i64 least = first - (end - 1 + head.position);
    for (i64 i = 0; i < distances; ++i) head.dposition_bias[n + greater(-n, lesser(n, least + i))] += head.dbiases[i];
}

// Queries [begin, end) against those keys of [block, block + packed), which are packed, that they see.
void differentiate_block(const Backward& args, const Differentiate& head, i64 begin, i64 end, i64 block, i64 packed) {
    const i64 skipped = skipped_keys(first_visible(args, head, begin, block, packed));
    const i64 first = block + skipped, keys = visible_keys(args, head, end - 1, block, packed) - skipped;
    if (keys <= 0) return;
    const i64 dim = args.head_dim, width = round_up(dim, panel_width), rows = end - begin;
    const float* dout = args.dout + head.queries_at(args.dout_stride) + begin * args.dout_stride.row;
    scale_rows(head.queries, head.q + begin * args.q_stride.row, args.q_stride.row, rows, dim, args.scale * log2_e);
    pack_values(head.query_panels, head.queries, dim, rows, dim);
    pack_values(head.dout_panels, dout, args.dout_stride.row, rows, dim);
    for (i64 r = 0; r < rows; ++r) {
        if (head.shift[begin + r] != inf) continue;  // it saw no key, and 0 * NaN must not be added
        for (i64 c = 0; c < width; c += panel_width)
            for (i64 i = 0; i < panel_width; i += W) {
                store(head.query_panels + c * rows + r * panel_width + i, zero());
                store(head.dout_panels + c * rows + r * panel_width + i, zero());
            }
    }
    multiply_keys(head.probabilities, backward_keys, head.queries, dim, rows, head.key_panels + skipped * dim, keys,
                  dim);
    multiply_keys(head.dscores, backward_keys, dout, args.dout_stride.row, rows, head.value_panels + skipped * dim,
                  keys, dim);
    if (args.position_bias) spread_bias(args, head, head.biases, first - (end - 1 + head.position), rows + keys);
    for (i64 r = 0; r < rows; ++r) {
        float* probabilities = head.probabilities + r * backward_keys;
        const i64 row = begin + r;
        finish_scores(args, head, head.mask_row, args.position_bias ? head.biases + (rows - 1 - r) : nullptr,
                      probabilities, row, first, keys);
        differentiate_scores(args, probabilities, head.dscores + r * backward_keys, head.first_lse + row, first,
                             visible_keys(args, head, row, first, keys), keys, head.shift[row], head.delta[row]);
    }
    if (head.dposition_bias) add_bias_gradient(args, head, begin, end, first, keys);
    // A masked key takes nothing of a query that is not finite.
    const bool masks = is_limited(args) || args.mask;
    const auto add_columns = [&](float* c, const float* a, const float* panels) {
        const Values values = panels_of_values(panels, rows);
        if (!masks || all_finite(values, rows, width))
            multiply_values<LayoutA::columns>(c, width, a, backward_keys, keys, values, rows, true);
        else
            add_columns_one_by_one(c, width, a, backward_keys, keys, panels, rows);
    };
    add_columns(head.dv + skipped * width, head.probabilities, head.dout_panels);
    add_columns(head.dk + skipped * width, head.dscores, head.query_panels);
    multiply_values<LayoutA::rows>(head.dq + begin * width, width, head.dscores, backward_keys, rows,
                                   panels_of_values(head.key_value_panels, packed).from(skipped), keys, true);
}

// Rows per block if `rows` rows are split into nearly equal blocks of full tiles.
FASTATTN_INLINE i64 rows_per_block(i64 rows) {
    const i64 blocks = greater(1, (rows + backward_queries - 1) / backward_queries);
    return greater(1, round_up((rows + blocks - 1) / blocks, common_rows));
}

void differentiate_head(const Backward& args, const Differentiate& head) {
    const i64 dim = args.head_dim, width = round_up(dim, panel_width);
    const float* dout = args.dout + head.queries_at(args.dout_stride);
    const float* out = args.out + head.queries_at(args.out_stride);
    for (i64 row = 0; row < head.len_q; ++row) {
        const float lse = args.softmax_lse[head.first_lse + row];
        head.shift[row] = lse == -inf ? inf : lse * log2_e;
        head.delta[row] = row_sum(dim, [&](i64 i, i64 n) {
            return load_n(dout + row * args.dout_stride.row + i, n) * load_n(out + row * args.out_stride.row + i, n);
        });
        for (i64 i = 0; i < width; i += W) store(head.dq + row * width + i, zero());
    }
    float* dk = args.dk + head.keys_at(args.dk_stride);
    float* dv = args.dv + head.keys_at(args.dv_stride);
    for (i64 first = 0; first < head.len_k; first += backward_keys) {
        const i64 keys = lesser(backward_keys, head.len_k - first);
        const float* k = head.k + first * args.k_stride.row;
        const float* v = head.v + first * args.v_stride.row;
        pack_keys(head.key_panels, k, args.k_stride.row, keys, dim);
        pack_keys(head.value_panels, v, args.v_stride.row, keys, dim);
        pack_values(head.key_value_panels, k, args.k_stride.row, keys, dim);
        // A masked key may have any value. A visible one that is not finite has already turned the scores into NaN.
        for (i64 i = 0; i < width * keys; i += W) {
            const vf x = load(head.key_value_panels + i);
            store(head.key_value_panels + i, select(less(abs(x), set1(inf)), x, zero()));
        }
        // the queries that see one of the keys
        const i64 begin = lesser(head.len_q, greater(0, first - head.position - args.right));
        const i64 end = greater(begin, lesser(head.len_q, first + keys - head.position + args.left));
        const i64 rows = rows_per_block(end - begin);
        for (i64 i = 0; i < width * keys; i += W) {
            store(head.dk + i, zero());
            store(head.dv + i, zero());
        }
        for (i64 row = begin; row < end; row += rows)
            differentiate_block(args, head, row, lesser(end, row + rows), first, keys);
        write_rows(dk + first * args.dk_stride.row, args.dk_stride.row, head.dk, width, keys, dim, ln_2);
        write_rows(dv + first * args.dv_stride.row, args.dv_stride.row, head.dv, width, keys, dim, 1.0f);
    }
    write_rows(args.dq + head.queries_at(args.dq_stride), args.dq_stride.row, head.dq, width, head.len_q, dim,
               args.scale);
}

// Head h of sequence b. The gradient of the bias is added to `dposition_bias`.
void backward_item(const Backward& args, i64 b, i64 h, float* dposition_bias, float* scratch) {
    const BackwardLayout layout(args.head_dim, args.seqlen_q);
    Differentiate head;
    static_cast<Head&>(head) = find_head(args, b, h);
    head.queries = scratch + layout.queries;
    head.query_panels = scratch + layout.query_panels;
    head.dout_panels = scratch + layout.dout_panels;
    head.key_panels = scratch + layout.key_panels;
    head.value_panels = scratch + layout.value_panels;
    head.key_value_panels = scratch + layout.key_value_panels;
    head.probabilities = scratch + layout.probabilities;
    head.dscores = scratch + layout.dscores;
    head.dq = scratch + layout.dq;
    head.dk = scratch + layout.dk;
    head.dv = scratch + layout.dv;
    head.shift = scratch + layout.shift;
    head.delta = scratch + layout.delta;
    head.mask_row = scratch + layout.mask_row;
    head.biases = scratch + layout.biases;
    head.dbiases = scratch + layout.dbiases;
    head.dposition_bias = dposition_bias;
    differentiate_head(args, head);
}

}  // namespace

void scaled_dot_product_attention_forward(const Forward& args) {
    const i64 wanted_items = 4 * num_threads();
    const i64 heads = args.batch * args.heads;
    if (args.seqlen_q <= few_queries) {
        const i64 floats = greater(1, args.seqlen_k) * args.head_dim * 2;  // that a head reads
        return parallel_for(
            heads, greater(divide_up(heads, 2 * wanted_items), 32768 / floats),
            [&](i64 begin, i64 end, float* scratch) { attend_few(args, begin, end, scratch); },
            Layout(args.head_dim, few_queries).floats);
    }
    // As many rows per item as leave several items for every thread.
    i64 query_block = max_query_block;
    while (query_block > min_query_block && (args.total_q + query_block - 1) / query_block * args.heads < wanted_items)
        query_block /= 2;
    const i64 blocks = (args.total_q + query_block - 1) / query_block;
    const i64 keys = lesser(args.seqlen_k, query_block + args.left + args.right);
    const i64 work = lesser(args.total_q, query_block) * greater(1, keys) * args.head_dim * 2;
    parallel_for(
        blocks * args.heads, greater(1, 65536 / greater(1, work)),
        [&](i64 begin, i64 end, float* scratch) {
            for (i64 item = begin; item < end; ++item) attention_item(args, query_block, item, scratch);
        },
        Layout(args.head_dim, query_block).floats);
}

void scaled_dot_product_attention_backward(const Backward& args) {
    // Sequences of one item: with a bias they share a sum.
    const i64 chunk = args.dposition_bias ? bias_chunk(args.batch) : 1;
    const i64 chunks = args.dposition_bias ? bias_chunks(args.batch) : args.batch;
    const i64 size = 2 * args.max_distance + 1;
    parallel_for(
        chunks * args.heads, 1,
        [&](i64 begin, i64 end, float* scratch) {
            for (i64 item = begin; item < end; ++item) {
                float* sums = args.dposition_bias ? args.bias_sums + item * size : nullptr;
                if (sums) for_vectors(size, [&](i64 i, i64 n) { store_n(sums + i, zero(), n); });
                const i64 first = item / args.heads * chunk, last = lesser(args.batch, first + chunk);
                for (i64 b = first; b < last; ++b) backward_item(args, b, item % args.heads, sums, scratch);
            }
        },
        BackwardLayout(args.head_dim, args.seqlen_q).floats);
    if (!args.dposition_bias) return;
    for (i64 h = 0; h < args.heads; ++h)
        for (i64 distance = 0; distance < size; ++distance) {
            float sum = 0.0f;
            for (i64 c = 0; c < chunks; ++c) sum += args.bias_sums[(c * args.heads + h) * size + distance];
            args.dposition_bias[distance * args.heads + h] = sum;
        }
}

}  // namespace fastattn::FASTATTN_ISA
