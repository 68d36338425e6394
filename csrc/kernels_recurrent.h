// The contract of lstm and gru, a part of kernels.h.
#pragma once

#include "kernels.h"

namespace fastattn {

// Sequences that a recurrent layer goes through step by step. Its own arrays are time-major: the rows of step t, one
// for each sequence that is longer than t, stand together from row step_begin[t] on, the longest sequence first. `x`
// and `out` are in the order of the tokens, states in that of the batch.
struct Sequences {
    const std::int32_t* cu_seqlens;  // [batch + 1]
    const i64* order;                // [batch]: the sequences, the longest first
    const i64* step_begin;           // [steps + 1]
    i64 batch, tokens, steps;
};

constexpr i64 most_directions = 2;

// What forward and backward of an LSTM share. `projection` is the width of h: `hidden` where h is not projected. Gates
// stand in rows of `ldg` floats: i, f, g, o, each [hidden].
struct Lstm {
    Sequences sequences;
    i64 directions, input, hidden, projection;
    i64 ldg, ldm;                // not a power of two: rows that begin a page apart push each other out of the cache
    float cell_clip, proj_clip;  // inf: none
};

// i, f, g, o = x W_ih^T + bias + h W_hh^T; c = clip(sigmoid(f) c + sigmoid(i) tanh(g)); h = sigmoid(o) tanh(c), or of
// that clip(h W_hr^T)
struct LstmForward : Lstm {
    struct Direction {
        float* out;              // [tokens, projection], row stride ldo
        float* h_n;              // [batch, projection]
        float* c_n;              // [batch, hidden]
        float* x_rows;           // x time-major, [tokens, input], written; or null: the rows of x are so already
        float* gates;            // [gate_rows, 4 hidden], row stride ldg
        float* h_rows;           // [batch + tokens, projection]: the first h, then those of all steps
        float* c_rows;           // [batch + tokens, hidden], as h_rows; or null
        float* m;                // [batch, hidden], row stride ldm: sigmoid(o) tanh(c); with a projection
        const float* x;          // [tokens, input], row stride ldx
        const float* ih_panels;  // W_ih in panels, or null: then
        const float* weight_ih;  // W_ih [4 hidden, input], row stride ld_ih
        const float* hh_panels;  // W_hh [4 hidden, projection] in panels of four groups
        const float* hr_panels;  // W_hr [projection, hidden] in panels; with a projection
        const float* bias_ih;    // [4 hidden] or null
        const float* h0;         // [batch, projection] or null: zeros
        const float* c0;         // [batch, hidden] or null: zeros
        i64 ldx, ld_ih;
        bool reverse;
    } direction[most_directions];
    i64 ldo;
    i64 gate_rows;     // so many rows of gates are there at a time, at least those of a step;
    bool keeps_gates;  // all of them, and after their activation
};

// Gradients are null where they are not wanted.
struct LstmBackward : Lstm {
    struct Direction {
        float* dx;            // [tokens, input]
        float* dweight_ih;    // [4 hidden, input]
        float* dweight_hh;    // [4 hidden, projection]
        float* dbias_ih;      // [4 hidden]
        float* dweight_hr;    // [projection, hidden]; with a projection
        float* dh0;           // [batch, projection]
        float* dc0;           // [batch, hidden]
        float* gates;         // as in the forward pass; written with hh_panels
        float* dgates;        // [tokens, 4 hidden], row stride ldg, written: of the gates before their activation
        float* dx_rows;       // [tokens, input], time-major as all that follows, written; may be dx
        float* dh;            // [batch, projection]
        float* dc;            // [batch, hidden]
        float* dprojection;   // [tokens, projection]; with a projection
        float* m;             // [tokens, hidden], row stride ldm; with a projection
        float* previous_h;    // [tokens, projection]; for dweight_hh and hh_panels
        float* block_sums;    // [sum_blocks(tokens), 4 hidden]; for dbias_ih
        const float* dout;    // [tokens, projection], row stride ldo, or null: zeros
        const float* dh_n;    // [batch, projection] or null
        const float* dc_n;    // [batch, hidden] or null
        const float* x_rows;  // row stride ldx
        const float* h_rows;  // as in the forward pass
        const float* c_rows;
        const float* ih_panels;
        const float* weight_ih;
        const float* hh_panels;             // to compute the gates again; null: they are there
        const float* hh_transposed_panels;  // W_hh^T in panels
        const float* hr_transposed_panels;  // W_hr^T in panels; with a projection
        const float* bias_ih;
        i64 ldx, ld_ih;
        bool reverse, starts_from_zero;  // no h0 was given
        bool add_to_dx, add_to_dweight_ih, add_to_dweight_hh, add_to_dbias_ih, add_to_dweight_hr;
    } direction[most_directions];
    i64 ldo;
};

// What forward and backward of a GRU share. Rows of gates, of `ldg` floats, are r, z, n and b_hn + h W_hn^T.
struct Gru {
    Sequences sequences;
    i64 directions, input, hidden;
    i64 ldg;
};

// r, z = sigmoid of x W_i^T + b_i + h W_h^T + b_h; n = tanh(x W_in^T + b_in + r (h W_hn^T + b_hn)); h = (1 - z) n + z h
struct GruForward : Gru {
    struct Direction {
        float* out;              // [tokens, hidden], row stride ldo
        float* h_n;              // [batch, hidden]
        float* x_rows;           // x time-major, [tokens, input], written; or null: the rows of x are so already
        float* gates;            // [gate_rows, 4 hidden], row stride ldg
        float* h_rows;           // [batch + tokens, hidden]: the first h, then those of all steps
        const float* x;          // [tokens, input], row stride ldx
        const float* ih_panels;  // W_ih in panels, or null: then
        const float* weight_ih;  // W_ih [3 hidden, input], row stride ld_ih
        const float* hh_panels;  // W_hh [3 hidden, hidden] in panels of three groups
        const float* bias_ih;    // [3 hidden] or null
        const float* bias_hh;    // [3 hidden] or null
        const float* h0;         // [batch, hidden] or null: zeros
        i64 ldx, ld_ih;
        bool reverse;
    } direction[most_directions];
    i64 ldo;
    i64 gate_rows;     // so many rows of gates are there at a time, at least those of a step;
    bool keeps_gates;  // all of them, and after their activation
};

// Gradients are null where they are not wanted.
struct GruBackward : Gru {
    struct Direction {
        float* dx;            // [tokens, input]
        float* dweight_ih;    // [3 hidden, input]
        float* dweight_hh;    // [3 hidden, hidden]
        float* dbias_ih;      // [3 hidden]
        float* dbias_hh;      // [3 hidden]
        float* dh0;           // [batch, hidden]
        float* gates;         // as in the forward pass; written with hh_panels
        float* dgates_x;      // [tokens, 3 hidden], row stride ldd, written: of what x gave the gates,
        float* dgates_h;      // and of what h gave them
        float* dx_rows;       // [tokens, input], time-major as all that follows, written; may be dx
        float* dh;            // [batch, hidden]
        float* previous_h;    // [tokens, hidden]; for dweight_hh and hh_panels
        float* block_sums;    // [sum_blocks(tokens), 3 hidden]; for dbias_ih and dbias_hh
        const float* dout;    // [tokens, hidden], row stride ldo, or null: zeros
        const float* dh_n;    // [batch, hidden] or null
        const float* x_rows;  // row stride ldx
        const float* h_rows;  // as in the forward pass
        const float* ih_panels;
        const float* weight_ih;
        const float* hh_panels;             // to compute the gates again; null: they are there
        const float* hh_transposed_panels;  // W_hh^T in panels
        const float* bias_ih;
        const float* bias_hh;
        i64 ldx, ld_ih;
        bool reverse, starts_from_zero;  // no h0 was given
        bool add_to_dx, add_to_dweight_ih, add_to_dweight_hh, add_to_dbias_ih, add_to_dbias_hh;
    } direction[most_directions];
    i64 ldo, ldd;
};

}  // namespace fastattn
