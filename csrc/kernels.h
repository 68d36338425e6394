// The contract between bindings and kernels: one plain struct per kernel.
//
// A kernel trusts its arguments: the bindings have checked every pointer, shape and stride. Strides count elements. A
// "row" is the last axis and is always contiguous. Outputs that are not requested and inputs not given are null.
#pragma once

#include <cstdint>

namespace fastattn {

using i64 = std::int64_t;

// Sums over rows (bias gradients) are taken in blocks of this many rows, and the blocks are added in order. The bits do
// not depend on the number of threads.
constexpr i64 sum_block = 64;
constexpr i64 sum_blocks(i64 rows) { return (rows + sum_block - 1) / sum_block; }

enum class Activation : int { none, relu, sigmoid, gelu, gelu_tanh, silu, tanh };
enum class Pooling : int { mean, cls, max, last, mean_sqrt_len, weighted_mean };
enum class MaskKind : int { none, boolean, additive };

struct Dropout {  // kernels/random.h; p = 0: none
    double p;
    std::uint64_t seed;
};

// y = f(x), row by row
struct RowsForward {
    float* y;        // [rows, dim]; may be x
    const float* x;  // [rows, dim], row stride ldx
    i64 rows, dim, ldx;
};

// dx = f(dy, saved)
struct RowsBackward {
    float* dx;           // [rows, dim]; may be dy or saved
    const float* dy;     // [rows, dim], row stride lddy
    const float* saved;  // x or y of the forward pass, [rows, dim], row stride lds
    i64 rows, dim, lddy, lds;
};

enum class Element : int { float32, bfloat16, int8 };

struct WeightView {       // of a weight W [n, k]
    const float* panels;  // W in panels (packing.h), or null: then
    const float* array;   // W, row stride ld
    i64 ld;
    Element element = Element::float32;   // of the panels. int8: W is scales[row] * its bytes * input_scales[column]
    const float* scales = nullptr;        // [n]
    const std::int32_t* sums = nullptr;   // [n]: of a row's bytes
    const float* input_scales = nullptr;  // [k], or null: 1
};

// y = act(x W^T + bias) + residual
struct LinearForward {
    float* y;               // [m, n], row stride ldy
    float* pre_activation;  // x W^T + bias, [m, n] contiguous, or null
    const float* x;         // [m, k], row stride ldx
    WeightView weight;      // [n, k]
    const float* bias;      // [n] or null
    const float* residual;  // [m, n], row stride ldr, or null
    i64 m, n, k;
    i64 ldy, ldx, ldr;
    Activation activation;
};

// With d = dy * act'(pre_activation): dx = d W, dweight = d^T x, dbias = the sum of d over rows.
struct LinearBackward {
    float* dx;                    // [m, k] contiguous, or null
    float* dweight;               // [n, k] contiguous, or null
    float* dbias;                 // [n] or null
    float* d;                     // [m, n] contiguous, written; given with an activation
    float* block_sums;            // [sum_blocks(m), n], written; given with dbias
    const float* dy;              // [m, n], row stride ldy
    const float* x;               // [m, k], row stride ldx; given with dweight
    WeightView weight;            // [n, k]; given with dx
    const float* pre_activation;  // [m, n], row stride ldp; given with an activation
    i64 m, n, k;
    i64 ldy, ldx, ldp;
    Activation activation;
    bool add_to_dweight, add_to_dbias;  // to the values there
};

// Both passes of attention share these. The probabilities are softmax(q k^T * scale + bias + mask) for every head of
// every sequence. Ragged: cu_seqlens_* are given and a row of q, k, v is a token; padded: they are null and sequence b
// starts at b * batch stride. Query i has the position i + (top_left ? 0 : len_k - len_q) and key j the position j.
struct ScaledDotProductAttention {
    static constexpr i64 no_limit = i64{1} << 60;
    struct Strides {
        i64 batch, row, head;
    };
    const float *q, *k, *v;            // rows of head_dim
    const std::int32_t* cu_seqlens_q;  // [batch + 1] or null
    const std::int32_t* cu_seqlens_k;  // [batch + 1] or null
    const void* mask;  // padded only: bool or float [batch, heads, seqlen_q, seqlen_k] by mask_stride (0: broadcast)
    MaskKind mask_kind;
    i64 mask_stride[4];
    const float* position_bias;  // [2 * max_distance + 1, heads], or null: by the position of the key less the query's
    i64 max_distance;            // what lies farther apart has the first or the last row
    Strides q_stride, k_stride, v_stride;
    i64 batch, heads, head_dim;
    i64 total_q;             // rows of q over all sequences
    i64 seqlen_q, seqlen_k;  // the longest
    i64 left, right;         // a query sees the keys from its position - left to its position + right
    float scale;
    bool top_left;
    Dropout dropout;  // of the probabilities, a row for each element of softmax_lse
};

// out = dropout(probabilities) v
struct ScaledDotProductAttentionForward : ScaledDotProductAttention {
    float* out;           // as q, contiguous
    float* softmax_lse;   // ragged [heads, total_q], padded [batch, heads, seqlen_q], or null
    float* attn_weights;  // the probabilities [batch, heads, seqlen_q, seqlen_k] zeroed by the caller, or null
    Strides out_stride;
};

struct ScaledDotProductAttentionBackward : ScaledDotProductAttention {
    float *dq, *dk, *dv;       // as q, k, v, with their own strides
    float* dposition_bias;     // as position_bias, or null
    float* bias_sums;          // [bias_chunks(batch), heads, 2 * max_distance + 1], written; given with it
    const float *dout, *out;   // as q, with their own strides
    const float* softmax_lse;  // as in the forward pass
    Strides dq_stride, dk_stride, dv_stride, dout_stride, out_stride;
};

// The gradient of position_bias is summed over chunks of sequences, then over the chunks.
constexpr i64 bias_chunk(i64 batch) { return (batch + 63) / 64; }  // sequences
constexpr i64 bias_chunks(i64 batch) { return batch == 0 ? 0 : (batch + bias_chunk(batch) - 1) / bias_chunk(batch); }

// y = (t - mean(t)) / sqrt(var(t) + eps) * weight + bias, t = dropout(x) + residual
struct LayerNormForward {
    float* y;               // [rows, dim], row stride ldy; may be x or residual
    float* mean;            // [rows] or null
    float* rstd;            // [rows] or null
    const float* x;         // [rows, dim], row stride ldx
    const float* residual;  // [rows, dim], row stride ldr, or null
    const float* weight;    // [dim] or null
    const float* bias;      // [dim] or null
    i64 rows, dim;
    i64 ldy, ldx, ldr;
    float eps;
    Dropout dropout;
};

struct LayerNormBackward {
    float* dx;              // [rows, dim] or null
    float* dresidual;       // [rows, dim] or null
    float* dweight;         // [dim], added to, or null
    float* dbias;           // [dim], added to, or null
    float* block_sums;      // [sum_blocks(rows), 2, dim], written; given with dweight or dbias
    const float* dy;        // [rows, dim], row stride lddy
    const float* x;         // [rows, dim], row stride ldx
    const float* residual;  // [rows, dim], row stride ldr, or null
    const float* weight;    // [dim] or null
    const float* mean;      // [rows]
    const float* rstd;      // [rows]
    i64 rows, dim;
    i64 lddy, ldx, ldr;
    Dropout dropout;
};

struct ActivationForward : RowsForward {
    Activation activation;
};

struct ActivationBackward : RowsBackward {  // saved: x
    Activation activation;
};

// y = act(a) * b; a and b are the halves of a row of x
struct GatedActivationForward {
    float* y;        // [rows, dim], row stride ldy; may be the first half of x
    const float* x;  // [rows, 2 * dim], row stride ldx
    i64 rows, dim, ldy, ldx;
    Activation activation;
};

struct GatedActivationBackward {
    float* dx;        // [rows, 2 * dim]
    const float* dy;  // [rows, dim], row stride lddy
    const float* x;   // [rows, 2 * dim], row stride ldx
    i64 rows, dim, lddy, ldx;
    Activation activation;
};

using SoftmaxForward = RowsForward;
using SoftmaxBackward = RowsBackward;  // dx = y (dy - sum(dy y)); saved: y

using LogSoftmaxForward = RowsForward;
using LogSoftmaxBackward = RowsBackward;  // dx = dy - e^y sum(dy); saved: y

// The k largest of log_softmax(x), in descending order, of equal ones the lower index first. Before that, what `ids`
// names in a row is multiplied by its factor, or becomes -inf if the factor is infinite.
struct LogSoftmaxTopkForward {
    float* values;               // [rows, k]
    i64* indices;                // [rows, k]
    const float* x;              // [rows, dim], row stride ldx
    const i64* ids;              // [cu_ids[rows]], ascending within a row, or null
    const std::int32_t* cu_ids;  // [rows + 1]; given with ids
    const float* factors;        // as ids
    i64 rows, dim, k, ldx;       // 1 <= k <= dim < 2^31
};

// y = LayerNorm(scale * weight[input_ids] + token_type_weight[token_type_ids] + position_weight[position_ids])
struct EmbeddingForward {
    float* y;                        // [tokens, dim]
    const i64* input_ids;            // [tokens]
    const i64* token_type_ids;       // [tokens] or null
    const i64* position_ids;         // [tokens] or null
    const float* weight;             // [*, dim], row stride ldw
    const float* token_type_weight;  // [*, dim], row stride ldt, or null with its ids
    const float* position_weight;    // [*, dim], row stride ldp, or null with its ids
    const float* norm_weight;        // [dim] or null: no LayerNorm
    const float* norm_bias;          // [dim] or null
    i64 tokens, dim;
    i64 ldw, ldt, ldp;
    float scale, eps;
};

// dweight[input_ids[i]] += dy[i], in the order of the tokens
struct EmbeddingBackward {
    float* dweight;        // [*, dim]
    const float* dy;       // [tokens, dim], row stride lddy
    const i64* input_ids;  // [tokens]
    i64 padding_idx;       // tokens with this id are left out; -1: none
    i64 tokens, dim, lddy;
};

// The first two parts of a token, its queries and keys, are turned by its position; the other parts stay. The halves a
// and b of a head become a cos - b sin and b cos + a sin. The backward pass, where x is dy, turns them back.
struct RotaryEmbedding {
    float* y;                 // [tokens, parts, heads, dim]; may be x
    const float* x;           // as y, with its own strides
    const i64* position_ids;  // [tokens]
    const float* table;       // [positions, dim], row stride ldt: the sines, then the cosines
    i64 tokens, parts, heads, dim;
    i64 token_stride, part_stride, head_stride, ldt;
};

struct RotaryEmbeddingForward : RotaryEmbedding {};
struct RotaryEmbeddingBackward : RotaryEmbedding {};

// into[rows[i]] = x[i]
struct ScatterRowsForward {
    float* into;      // [*, dim]
    const float* x;   // [count, dim], row stride ldx
    const i64* rows;  // [count], distinct
    i64 count, dim, ldx;
};

// One width of a character CNN: filters over windows of `width` characters.
struct CharConvolution {
    const float* panels;  // W [filters, width * dim] in panels (packing.h); forward only
    const float* weight;  // W contiguous; for dembedding
    const float* bias;    // [filters]; forward only
    float* dweight;       // as W, added to, or null; backward only
    float* dbias;         // [filters], added to, or null; backward only
    i64 width, filters;
    i64 column;  // of y, where its filters begin
};

// y = act(the largest value of the convolution over all positions + bias)
struct CharCnnForward {
    float* y;                             // [words, filters]: of all widths
    std::int32_t* argmax;                 // [words, filters] or null: the first position of the largest value, or NaN
    const i64* char_ids;                  // [words, chars]
    const float* embedding;               // [*, dim], row stride lde
    const CharConvolution* convolutions;  // [count]
    i64 words, chars, dim, filters, count, lde;
    bool tanh;  // else relu
};

struct CharCnnBackward {
    float* dembedding;                    // [*, dim], added to, or null
    const float* dy;                      // [words, filters], row stride lddy
    const i64* char_ids;                  // [words, chars]
    const float* embedding;               // [*, dim], row stride lde
    const CharConvolution* convolutions;  // [count]
    const float* y;                       // [words, filters], row stride ldy
    const std::int32_t* argmax;           // [words, filters]
    i64 words, chars, dim, filters, count;
    i64 lddy, lde, ldy;
    bool tanh;
};

// y = sigmoid(t) relu(h) + (1 - sigmoid(t)) x, where h and t are the halves of the projection x W^T + bias
struct HighwayForward {
    LinearForward linear;  // the projection, n = 2 k; its y is contiguous, or null, which needs panels
    float* y;              // [m, k]
};

struct HighwayBackward {
    LinearBackward linear;    // of the projection; its dy is d, its dx the gradient of x
    float* d;                 // [m, n], written: the gradient of the projection
    const float* dy;          // [m, k], row stride lddy
    const float* projection;  // [m, n]
    i64 lddy;
};

struct PoolingForward {
    float* y;                        // [batch, dim]
    const float* x;                  // [tokens, dim], row stride ldx
    const std::int32_t* cu_seqlens;  // [batch + 1]
    i64 batch, dim, ldx;
    Pooling mode;
};

struct PoolingBackward {
    float* dx;                       // [tokens, dim]
    const float* dy;                 // [batch, dim], row stride lddy
    const float* x;                  // [tokens, dim], row stride ldx; read for the maximum
    const std::int32_t* cu_seqlens;  // [batch + 1]
    i64 batch, dim, lddy, ldx;
    Pooling mode;
};

// y = x / max(||x||, eps)
struct L2NormalizeForward : RowsForward {
    float eps;
};

struct L2NormalizeBackward : RowsBackward {  // saved: x
    float eps;
};

// loss = lse - ((1 - label_smoothing) logits[target] + label_smoothing mean(logits)), lse = log(sum(e^logits))
struct CrossEntropyForward {
    float* loss;          // [rows]; 0 where the target is ignore_index
    double* lse;          // [rows]: the logits may share an offset that uses up the digits of a float
    const float* logits;  // [rows, classes], row stride ldx
    const i64* target;    // [rows]
    i64 rows, classes, ldx;
    i64 ignore_index;
    float label_smoothing;
};

struct CrossEntropyBackward {
    float* dlogits;       // [rows, classes]; may be logits
    const float* dloss;   // [rows]
    const float* logits;  // [rows, classes], row stride ldx
    const i64* target;    // [rows]
    const double* lse;    // [rows]
    i64 rows, classes, ldx;
    i64 ignore_index;
    float label_smoothing;
};

// y = dropout(x) + residual
struct DropoutForward : RowsForward {
    const float* residual;  // [rows, dim], row stride ldr, or null
    i64 ldr;
    Dropout dropout;
};

struct DropoutBackward {
    float* dx;        // [rows, dim]; may be dy
    const float* dy;  // [rows, dim], row stride lddy
    i64 rows, dim, lddy;
    Dropout dropout;
};

// g = grad + l2 param; exp_avg = beta1 exp_avg + (1 - beta1) g, as a step from the nearer one; exp_avg_sq = beta2
// exp_avg_sq + (1 - beta2) g^2; param -= decay param + step_size exp_avg / (root_scale sqrt(exp_avg_sq) + eps)
struct AdamwForward {
    float* param;  // [count], as the others
    const float* grad;
    float* exp_avg;
    float* exp_avg_sq;
    i64 count;
    float decay, l2, beta1_step, beta2, one_minus_beta2, step_size, root_scale, eps;
    bool from_grad;  // beta1_step is beta1; else it is 1 - beta1, and from exp_avg
};

// g = grad + weight_decay param; buffer = momentum buffer + (1 - dampening) g, at first g;
// param -= lr (nesterov ? g + momentum buffer : buffer)
struct SgdForward {
    float* param;  // [count], as the others
    const float* grad;
    float* momentum_buffer;  // or null: g in its place
    i64 count;
    float lr, momentum, one_minus_dampening, weight_decay;
    bool nesterov, first;
};

struct GradientNormForward {
    struct Piece {
        const float* data;
        i64 count;
    };
    double* sums;         // [pieces]: of squares
    const Piece* pieces;  // cut by the shapes alone
    i64 count;
};

}  // namespace fastattn

#include "kernels_crf.h"
#include "kernels_recurrent.h"
