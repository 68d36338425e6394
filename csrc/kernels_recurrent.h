// The contract of lstm and gru, a part of kernels.h.
#pragma once

#include "kernels.h"

namespace fastattn {

// The sequences of a recurrent layer, which steps through them together. Its own arrays are time-major: the rows of
// step t start at row step_begin[t], one for each sequence longer than t, the longest first. `x` and `out` are in the
// order of the tokens, states in the order of the batch.
struct Sequences {
    const std::int32_t* cu_seqlens;  // [batch + 1]
    const i64* order;                // [batch]: the sequences, the longest first
    const i64* step_begin;           // [steps + 1]
    i64 batch, tokens, steps;
};

constexpr i64 most_directions = 2;

// Every pass has these. Rows of gates are `ldg` floats apart, which is not a power of two: rows that start a page apart
// would evict each other from the cache.
struct Recurrent {
    Sequences sequences;
    i64 directions, gates, input, hidden;
    i64 width;  // of h: `hidden`, or the size of an LSTM's projection
    i64 ldg, ldo;
};

struct RecurrentForward : Recurrent {
    i64 gate_rows;     // rows of gates in memory at a time, at least the rows of a step
    bool keeps_gates;  // all rows, after their activation
};

struct RecurrentBackward : Recurrent {
    i64 ldd;  // of dgates
};

struct ForwardDirection {
    float* out;              // [tokens, width], row stride ldo
    float* h_n;              // [batch, width]
    float* x_rows;           // x time-major, [tokens, input], written; or null: x is time-major itself
    float* gates;            // [gate_rows, 4 hidden], row stride ldg
    float* h_rows;           // [batch + tokens, width]: the initial h, then h of all steps
    const float* x;          // [tokens, input], row stride ldx
    WeightView weight_ih;    // [gates hidden, input]
    const float* hh_panels;  // W_hh [gates hidden, width] in panels, with one group per gate
    const float* bias_ih;    // [gates hidden] or null
    const float* h0;         // [batch, width] or null: zeros
    i64 ldx;
    bool reverse;
};

// A gradient is null if it is not wanted.
struct BackwardDirection {
    float* dx;                          // [tokens, input]
    float* dweight_ih;                  // [gates hidden, input]
    float* dweight_hh;                  // [gates hidden, width]
    float* dbias_ih;                    // [gates hidden]
    float* dh0;                         // [batch, width]
    float* gates;                       // as in the forward pass; written with hh_panels
    float* dgates;                      // [tokens, gates hidden], row stride ldd, written: of x's part of the gates
    float* dx_rows;                     // [tokens, input], written; may be dx. Time-major, like all below
    float* dh;                          // [batch, width]
    float* previous_h;                  // [tokens, width]; for dweight_hh and hh_panels
    float* block_sums;                  // [sum_blocks(tokens), gates hidden]; for gradients of biases
    const float* dout;                  // [tokens, width], row stride ldo, or null: zeros
    const float* dh_n;                  // [batch, width] or null
    const float* x_rows;                // row stride ldx
    const float* h_rows;                // as in the forward pass
    WeightView weight_ih;               // [gates hidden, input]
    const float* hh_panels;             // to recompute the gates; null: they were kept
    const float* hh_transposed_panels;  // W_hh^T in panels
    const float* bias_ih;
    i64 ldx;
    bool reverse, starts_from_zero;  // no h0 was given
    bool add_to_dx, add_to_dweight_ih, add_to_dweight_hh, add_to_dbias_ih;
};

// Gates are i, f, g, o.
struct Lstm {
    i64 ldm;                     // of m, as ldg
    float cell_clip, proj_clip;  // inf: none
};

// i, f, g, o = x W_ih^T + bias + h W_hh^T; c = clip(sigmoid(f) c + sigmoid(i) tanh(g)); h = sigmoid(o) tanh(c), or
// clip((sigmoid(o) tanh(c)) W_hr^T)
struct LstmForward : RecurrentForward, Lstm {
    struct Direction : ForwardDirection {
        float* c_n;              // [batch, hidden]
        float* c_rows;           // [batch + tokens, hidden], as h_rows; or null
        float* m;                // [batch, hidden], row stride ldm: sigmoid(o) tanh(c); with a projection
        const float* hr_panels;  // W_hr [width, hidden] in panels; with a projection
        const float* c0;         // [batch, hidden] or null: zeros
        const float* residual;   // added to out: [tokens, width], row stride ldr; or null
    } direction[most_directions];
    i64 ldr;
};

struct LstmBackward : RecurrentBackward, Lstm {
    struct Direction : BackwardDirection {
        float* dweight_hr;                  // [width, hidden]; with a projection
        float* dc0;                         // [batch, hidden]
        float* dc;                          // [batch, hidden]
        float* dprojection;                 // [tokens, width]; with a projection
        float* m;                           // [tokens, hidden], row stride ldm; with a projection
        const float* dc_n;                  // [batch, hidden] or null
        const float* c_rows;                // as in the forward pass
        const float* hr_transposed_panels;  // W_hr^T in panels; with a projection
        bool add_to_dweight_hr;
    } direction[most_directions];
};

// r, z = sigmoid of x W_i^T + b_i + h W_h^T + b_h; n = tanh(x W_in^T + b_in + r (h W_hn^T + b_hn)); h = (1 - z) n + z h
//
// Rows of gates are r, z, n and b_hn + h W_hn^T.
struct GruForward : RecurrentForward {
    struct Direction : ForwardDirection {
        const float* bias_hh;  // [3 hidden] or null
    } direction[most_directions];
};

struct GruBackward : RecurrentBackward {
    struct Direction : BackwardDirection {
        float* dbias_hh;       // [3 hidden]
        float* dgates_h;       // as dgates, written: of h's part of the gates
        const float* bias_hh;  // [3 hidden] or null
        bool add_to_dbias_hh;
    } direction[most_directions];
};

}  // namespace fastattn
