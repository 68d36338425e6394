#include "../simd/math.h"
#include "recurrent.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 gates = 3;                           // r, z, n
constexpr i64 tile_columns = gates * panel_width;  // of the same 16 units

// The gates of `rows` rows and of the units [unit, unit + n), in rows of 48: r and z before their activation, and h's
// part of n, which r multiplies before x's part is added. Without `h` it is 0.
template <typename Direction>
FASTATTN_INLINE void fill_tile(float* tile, const Recurrent& args, const Direction& d, const float* from_x,
                               const float* h, i64 rows, i64 unit, i64 n) {
    for (i64 r = 0; r < rows; ++r)
        for (i64 gate = 0; gate < gates; ++gate) {
            const float* from = gate < 2 ? from_x + r * args.ldg + gate * args.hidden + unit : nullptr;
            const float* bias = d.bias_hh ? d.bias_hh + gate * args.hidden + unit : nullptr;
            float* to = tile + r * tile_columns + gate * panel_width;
            for_vectors(panel_width, [&](i64 i, i64) {
                const i64 count = greater(0, lesser(W, n - i));
                const vf x = from ? load_n(from + i, count) : zero();
                store(to + i, bias ? x + load_n(bias + i, count) : x);
            });
        }
    if (h) multiply_h<gates>(tile, args, h, d.hh_panels, rows, unit);
}

// Step t of the units of a part; the row `first_row` is the first of the gates.
void step_units(const GruForward& args, const GruForward::Direction& d, const Pieces& pieces, i64 t, i64 part,
                i64 first_row, float* tile) {
    const Sequences& s = args.sequences;
    const i64 hidden = args.hidden;
    pieces.for_blocks(part, hidden, step_rows(s, t), [&](i64 unit, i64 n, i64 first, i64 last) {
        float* gate_rows = d.gates + (s.step_begin[t] - first_row + first) * args.ldg;
        const float* before = d.h_rows + previous_row(s, t, first) * hidden;
        fill_tile(tile, args, d, gate_rows, t == 0 && !d.h0 ? nullptr : before, last - first, unit, n);
        for (i64 r = first; r < last; ++r) {
            const float* row = tile + (r - first) * tile_columns;
            const float* h = before + (r - first) * hidden + unit;
            float* kept = gate_rows + (r - first) * args.ldg + unit;
            float* h_row = d.h_rows + state_row(s, t, r) * hidden + unit;
            float* out = d.out + token_of(s, t, r, d.reverse) * args.ldo + unit;
            for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
                const auto reset = sigmoid(at(row)), update = sigmoid(at(row + panel_width));
                const auto from_h = at(row + 2 * panel_width);
                const auto candidate = tanh(fma(reset, from_h, at(kept + 2 * hidden)));
                const auto y = fma(update, at(h) - candidate, candidate);
                at.put(h_row, y);
                at.put(out, y);
                if (!args.keeps_gates) return;
                at.put(kept, reset);
                at.put(kept + hidden, update);
                at.put(kept + 2 * hidden, candidate);
                at.put(kept + 3 * hidden, from_h);
            });
        }
    });
}

// Step t for the columns of a part: the gradients of its h and gates, and the gradient that bypasses the gates to the
// previous h. t = -1 is the initial state.
void step_back(const GruBackward& args, const GruBackward::Direction& d, const Pieces& pieces, i64 t, i64 part) {
    const Sequences& s = args.sequences;
    const i64 hidden = args.hidden;
    const i64 begin = pieces.begin(part, hidden), end = pieces.end(part, hidden);
    if (begin == end) return;
    if (t + 1 < s.steps) {
        StepProduct p{};
        p.a = d.dgates_h + s.step_begin[t + 1] * args.ldd;
        p.lda = args.ldd;
        p.panels = d.hh_transposed_panels + begin * gates * hidden;
        p.c = d.dh + begin;
        p.ldc = hidden;
        p.rows = step_rows(s, t + 1);
        p.columns = end - begin;
        p.depth = gates * hidden;
        p.resume = true;  // the part that bypassed the gates
        multiply_step(p);
    }
    if (t < 0) return;
    for (i64 r = 0; r < step_rows(s, t); ++r) {
        const i64 row = s.step_begin[t] + r;
        const float* x = d.gates + row * args.ldg + begin;
        const float* before = d.h_rows + previous_row(s, t, r) * hidden + begin;
        const float* dout = d.dout ? d.dout + token_of(s, t, r, d.reverse) * args.ldo + begin : nullptr;
        float* dh_row = d.dh + r * hidden + begin;
        float* to_x = d.dgates + row * args.ldd + begin;
        float* to_h = d.dgates_h + row * args.ldd + begin;
        for_floats(0, end - begin, [&](auto at) __attribute__((always_inline)) {
            using V = decltype(at(x));
            const V one = constant<V>(1.0f);
            const V reset = at(x), update = at(x + hidden), candidate = at(x + 2 * hidden), from_h = at(x + 3 * hidden);
            V dh = at(dh_row);
            if (dout) dh = dh + at(dout);
            const V dn = dh * (one - update) * fma(-candidate, candidate, one);
            const V dr = dn * from_h * reset * (one - reset);
            const V dz = dh * (at(before) - candidate) * update * (one - update);
            at.put(dh_row, dh * update);
            at.put(to_x, dr);
            at.put(to_x + hidden, dz);
            at.put(to_x + 2 * hidden, dn);
            at.put(to_h, dr);
            at.put(to_h + hidden, dz);
            at.put(to_h + 2 * hidden, dn * reset);
        });
    }
}

// Recomputes the gates of all rows.
void compute_gates_again(const GruBackward& args, const GruBackward::Direction& d) {
    const i64 hidden = args.hidden;
    revisit_gates(args, d, [&](float* gate_rows, const float* h, i64 rows, i64 unit, i64 n, float* tile) {
        fill_tile(tile, args, d, gate_rows, h, rows, unit, n);
        for (i64 r = 0; r < rows; ++r) {
            const float* row = tile + r * tile_columns;
            float* to = gate_rows + r * args.ldg + unit;
            for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
                const auto reset = sigmoid(at(row)), from_h = at(row + 2 * panel_width);
                at.put(to, reset);
                at.put(to + hidden, sigmoid(at(row + panel_width)));
                at.put(to + 2 * hidden, tanh(fma(reset, from_h, at(to + 2 * hidden))));
                at.put(to + 3 * hidden, from_h);
            });
        }
    });
}

// The gradient of bias_hh.
void differentiate_bias_hh(const GruBackward& args, const GruBackward::Direction& d) {
    if (!d.dbias_hh) return;
    LinearBackward p{};
    p.dy = d.dgates_h;
    p.ldy = args.ldd;
    p.m = args.sequences.tokens;
    p.n = gates * args.hidden;
    p.k = args.hidden;
    p.dbias = d.dbias_hh;
    p.add_to_dbias = d.add_to_dbias_hh;
    p.block_sums = d.block_sums;
    linear_backward(p);
}

}  // namespace

void gru_forward(const GruForward& args) {
    const Pieces pieces(args);
    run_forward(args, 1, row_block * tile_columns, pieces,
                [&](const GruForward::Direction& d, i64 t, i64, i64 part, i64 first_row, float* tile) {
                    step_units(args, d, pieces, t, part, first_row, tile);
                });
}

void gru_backward(const GruBackward& args) {
    const Pieces pieces(args);
    run_backward(
        args, 1, 0, pieces, [&](const GruBackward::Direction& d) { compute_gates_again(args, d); },
        [&](const GruBackward::Direction& d, i64 t, i64, i64 part, float*) { step_back(args, d, pieces, t, part); });
    for (i64 i = 0; i < args.directions; ++i) {
        differentiate_h(args, args.direction[i], args.direction[i].dgates_h);
        differentiate_bias_hh(args, args.direction[i]);
    }
}

}  // namespace fastattn::FASTATTN_ISA
