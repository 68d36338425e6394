// The contract between bindings and kernels: one plain struct per kernel.
//
// A kernel trusts its arguments: the bindings have checked every pointer, shape and stride. Strides count elements, a
// "row" is the last axis and is always contiguous, a null output is not wanted and a null input is not given.
#pragma once

#include <cstdint>

namespace fastattn {

using i64 = std::int64_t;

enum class Activation : int { none, relu, gelu, gelu_tanh, silu, tanh };
enum class Pooling : int { mean, cls, max, last, mean_sqrt_len, weighted_mean };
enum class MaskKind : int { none, boolean, additive };

// y = act(x W^T + bias) + residual
struct LinearForward {
    float* y;               // [m, n], row stride ldy
    const float* x;         // [m, k], row stride ldx
    const float* panels;    // W in panels (packing.h), or null: then
    const float* weight;    // W [n, k], row stride ldw
    const float* bias;      // [n] or null
    const float* residual;  // [m, n], row stride ldr, or null
    i64 m, n, k;
    i64 ldy, ldx, ldw, ldr;
    Activation activation;
};

// out = softmax(q k^T * scale + mask) v for every head of every sequence.
// Ragged: cu_seqlens_* are given and a row of q, k, v, out is a token; padded: they are null and sequence b starts at
// b * batch_stride. Key j is visible to query i of a causal call when j <= i + (top_left ? 0 : len_k - len_q).
struct ScaledDotProductAttentionForward {
    struct Strides {
        i64 batch, row, head;
    };
    float* out;                        // as q, contiguous
    float* softmax_lse;                // ragged [heads, total_q], padded [batch, heads, seqlen_q], or null
    float* attn_weights;               // [batch, heads, seqlen_q, seqlen_k] zeroed by the caller, or null
    const float *q, *k, *v;            // rows of head_dim
    const std::int32_t* cu_seqlens_q;  // [batch + 1] or null
    const std::int32_t* cu_seqlens_k;  // [batch + 1] or null
    const void* mask;  // padded only: bool or float [batch, heads, seqlen_q, seqlen_k] by mask_stride (0: broadcast)
    MaskKind mask_kind;
    i64 mask_stride[4];
    Strides q_stride, k_stride, v_stride, out_stride;
    i64 batch, heads, head_dim;
    i64 total_q;             // rows of q over all sequences
    i64 seqlen_q, seqlen_k;  // the longest
    float scale;
    bool causal, top_left;
};

// y = (t - mean(t)) / sqrt(var(t) + eps) * weight + bias, t = x + residual
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
};

struct GeluForward {
    float* y;        // [rows, dim]; may be x
    const float* x;  // [rows, dim], row stride ldx
    i64 rows, dim, ldx;
    bool tanh;  // the tanh form instead of the exact one
};

struct SoftmaxForward {
    float* y;        // [rows, dim]; may be x
    const float* x;  // [rows, dim], row stride ldx
    i64 rows, dim, ldx;
};

struct LogSoftmaxForward {
    float* y;        // [rows, dim]; may be x
    const float* x;  // [rows, dim], row stride ldx
    i64 rows, dim, ldx;
};

// y = LayerNorm(weight[input_ids] + token_type_weight[token_type_ids] + position_weight[position_ids])
struct EmbeddingForward {
    float* y;                        // [tokens, dim]
    const i64* input_ids;            // [tokens]
    const i64* token_type_ids;       // [tokens] or null
    const i64* position_ids;         // [tokens] or null
    const float* weight;             // [*, dim], row stride ldw
    const float* token_type_weight;  // [*, dim], row stride ldt, or null with its ids
    const float* position_weight;    // [*, dim], row stride ldp, or null with its ids
    const float* norm_weight;        // [dim] or null: no LayerNorm
    const float* norm_bias;          // [dim], given with norm_weight
    i64 tokens, dim;
    i64 ldw, ldt, ldp;
    float eps;
};

struct PoolingForward {
    float* y;                        // [batch, dim]
    const float* x;                  // [tokens, dim], row stride ldx
    const std::int32_t* cu_seqlens;  // [batch + 1]
    i64 batch, dim, ldx;
    Pooling mode;
};

// y = x / max(||x||, eps)
struct L2NormalizeForward {
    float* y;        // [rows, dim]; may be x
    const float* x;  // [rows, dim], row stride ldx
    i64 rows, dim, ldx;
    float eps;
};

}  // namespace fastattn
