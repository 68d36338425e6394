#include "../simd/math.h"
#include "recurrent.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 gates = 4;                           // i, f, g, o
constexpr i64 tile_columns = gates * panel_width;  // of the same 16 units
constexpr i64 scratch_floats = row_block * tile_columns;

template <typename V>
FASTATTN_INLINE V clip(V x, float limit) {  // NaN stays
    return max(constant<V>(-limit), min(constant<V>(limit), x));
}

// The gradient where x was not clipped, 0 where it was, even if the gradient is NaN.
template <typename V>
FASTATTN_INLINE V if_not_clipped(V gradient, V x, float limit) {
    return select(equal(abs(x), constant<V>(limit)), constant<V>(0.0f), gradient);
}

// The gates of `rows` rows and the units [unit, unit + n), before their activation, in rows of 64: x's part and, unless
// `h` is null, h W_hh^T.
FASTATTN_INLINE void fill_tile(float* tile, const Recurrent& args, const float* from_x, const float* h,
                               const float* panels, i64 rows, i64 unit, i64 n) {
    for (i64 r = 0; r < rows; ++r)
        for (i64 gate = 0; gate < gates; ++gate) {
            const float* from = from_x + r * args.ldg + gate * args.hidden + unit;
            copy_units(tile + r * tile_columns + gate * panel_width, from, n);
            __builtin_prefetch(from + panel_width);  // for the next 16 units
        }
    if (h) multiply_h<gates>(tile, args, h, panels, rows, unit);
}

template <typename At, typename V>
FASTATTN_INLINE void put_gates(At at, float* row, i64 stride, V i, V f, V g, V o) {
    at.put(row, i);
    at.put(row + stride, f);
    at.put(row + 2 * stride, g);
    at.put(row + 3 * stride, o);
}

// Step t of the units of a part: c, and h or, with a projection, m. The row `first_row` is the first of the gates.
void step_units(const LstmForward& args, const LstmForward::Direction& d, const Pieces& pieces, i64 t, i64 part,
                i64 first_row, float* tile) {
    const Sequences& s = args.sequences;
    const i64 hidden = args.hidden, width = args.width;
    pieces.for_blocks(part, hidden, step_rows(s, t), [&](i64 unit, i64 n, i64 first, i64 last) {
        float* gate_rows = d.gates + (s.step_begin[t] - first_row + first) * args.ldg;
        const float* h = t == 0 && !d.h0 ? nullptr : d.h_rows + previous_row(s, t, first) * width;
        fill_tile(tile, args, gate_rows, h, d.hh_panels, last - first, unit, n);
        for (i64 r = first; r < last; ++r) {
            const float* row = tile + (r - first) * tile_columns;
            float* c_n = d.c_n + s.order[r] * hidden + unit;
            float* c_row = d.c_rows ? d.c_rows + state_row(s, t, r) * hidden + unit : nullptr;
            float* h_row = d.m ? d.m + r * args.ldm + unit : d.h_rows + state_row(s, t, r) * hidden + unit;
            const i64 token = token_of(s, t, r, d.reverse);
            float* out = d.m ? nullptr : d.out + token * args.ldo + unit;
            const float* residual = d.residual ? d.residual + token * args.ldr + unit : nullptr;
            float* kept = args.keeps_gates ? gate_rows + (r - first) * args.ldg + unit : nullptr;
            for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
                const auto i = sigmoid(at(row)), f = sigmoid(at(row + panel_width));
                const auto g = tanh(at(row + 2 * panel_width)), o = sigmoid(at(row + 3 * panel_width));
                const auto c = clip(fma(f, at(c_n), i * g), args.cell_clip);
                const auto y = o * tanh(c);
                at.put(c_n, c);
                if (c_row) at.put(c_row, c);
                at.put(h_row, y);
                if (out) at.put(out, residual ? y + at(residual) : y);
                if (kept) put_gates(at, kept, hidden, i, f, g, o);
            });
        }
    });
}

// h = clip(m W_hr^T) of step t, the columns of a part.
void step_projection(const LstmForward& args, const LstmForward::Direction& d, const Pieces& pieces, i64 t, i64 part) {
    const Sequences& s = args.sequences;
    const i64 width = args.width;
    const i64 begin = pieces.begin(part, width), end = pieces.end(part, width);
    if (begin == end) return;
    float* h_rows = d.h_rows + state_row(s, t, 0) * width + begin;
    StepProduct p{};
    p.a = d.m;
    p.lda = args.ldm;
    p.panels = d.hr_panels + begin * args.hidden;
    p.c = h_rows;
    p.ldc = width;
    p.rows = step_rows(s, t);
    p.columns = end - begin;
    p.depth = args.hidden;
    multiply_step(p);
    for (i64 r = 0; r < p.rows; ++r) {
        float* h = h_rows + r * width;
        const i64 token = token_of(s, t, r, d.reverse);
        float* out = d.out + token * args.ldo + begin;
        const float* residual = d.residual ? d.residual + token * args.ldr + begin : nullptr;
        for_floats(0, end - begin, [&](auto at) __attribute__((always_inline)) {
            const auto y = clip(at(h), args.proj_clip);
            at.put(h, y);
            at.put(out, residual ? y + at(residual) : y);
        });
    }
}

// The gradients of the gates and of c, from the gradients of m = sigmoid(o) tanh(c), 16 for each of the rows [first,
// last) of step t, and of the next step's c.
FASTATTN_INLINE void differentiate_units(const LstmBackward& args, const LstmBackward::Direction& d, i64 t, i64 first,
                                         i64 last, i64 unit, i64 n, const float* dm) {
    const Sequences& s = args.sequences;
    const i64 hidden = args.hidden;
    for (i64 r = first; r < last; ++r, dm += panel_width) {
        const i64 row = s.step_begin[t] + r;
        const float* from = d.gates + row * args.ldg + unit;
        float* to = d.dgates + row * args.ldd + unit;
        const float* c_row = d.c_rows + state_row(s, t, r) * hidden + unit;
        const float* c_before = d.c_rows + previous_row(s, t, r) * hidden + unit;
        float* dc_row = d.dc + r * hidden + unit;
        float* m = d.m ? d.m + row * args.ldm + unit : nullptr;
        for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
            using V = decltype(at(dm));
            const V one = constant<V>(1.0f);
            const V i = at(from), f = at(from + hidden), g = at(from + 2 * hidden), o = at(from + 3 * hidden);
            const V c = at(c_row), y = tanh(c), d_m = at(dm);
            if (m) at.put(m, o * y);
            const V dc = if_not_clipped(fma(d_m * o, fma(-y, y, one), at(dc_row)), c, args.cell_clip);
            at.put(dc_row, dc * f);
            put_gates(at, to, hidden, dc * g * i * (one - i), dc * at(c_before) * f * (one - f),
                      dc * i * fma(-g, g, one), d_m * y * o * (one - o));
        });
    }
}

// The gradient of the h of step t, the columns of a part: from step t + 1 and from outside. t = -1: the initial state.
void step_dh(const LstmBackward& args, const LstmBackward::Direction& d, const Pieces& pieces, i64 t, i64 part,
             float* dm) {
    const Sequences& s = args.sequences;
    const i64 width = args.width, rows = t < 0 ? 0 : step_rows(s, t);
    for (i64 column = pieces.begin(part, width); column < pieces.end(part, width); column += panel_width) {
        const i64 n = lesser(panel_width, width - column);
        if (t + 1 < s.steps) {
            StepProduct p{};
            p.a = d.dgates + s.step_begin[t + 1] * args.ldd;
            p.lda = args.ldd;
            p.panels = d.hh_transposed_panels + column * gates * args.hidden;
            p.c = d.dh + column;
            p.ldc = width;
            p.rows = step_rows(s, t + 1);
            p.columns = n;
            p.depth = gates * args.hidden;
            multiply_step(p);
        }
        for (i64 first = 0; first < rows; first += row_block) {
            const i64 last = lesser(rows, first + row_block);
            for (i64 r = first; r < last; ++r) {
                const i64 row = s.step_begin[t] + r;
                const float* dh = d.dh + r * width + column;
                const float* dout = d.dout ? d.dout + token_of(s, t, r, d.reverse) * args.ldo + column : nullptr;
                const float* h = d.h_rows + state_row(s, t, r) * width + column;
                float* to = d.dprojection ? d.dprojection + row * width + column : dm + (r - first) * panel_width;
                for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
                    auto value = at(dh);
                    if (dout) value = value + at(dout);
                    if (d.dprojection) value = if_not_clipped(value, at(h), args.proj_clip);
                    at.put(to, value);
                });
            }
            if (!d.dprojection) differentiate_units(args, d, t, first, last, column, n, dm);
        }
    }
}

// With a projection: the gradients of m and of the gates of step t, the units of a part.
void step_dm(const LstmBackward& args, const LstmBackward::Direction& d, const Pieces& pieces, i64 t, i64 part,
             float* dm) {
    const Sequences& s = args.sequences;
    pieces.for_blocks(part, args.hidden, step_rows(s, t), [&](i64 unit, i64 n, i64 first, i64 last) {
        StepProduct p{};
        p.a = d.dprojection + (s.step_begin[t] + first) * args.width;
        p.lda = p.depth = args.width;
        p.panels = d.hr_transposed_panels + unit * args.width;
        p.c = dm;
        p.ldc = p.columns = panel_width;
        p.rows = last - first;
        multiply_step(p);
        differentiate_units(args, d, t, first, last, unit, n, dm);
    });
}

// Recomputes the gates of all rows.
void compute_gates_again(const LstmBackward& args, const LstmBackward::Direction& d) {
    revisit_gates(args, d, [&](float* gate_rows, const float* h, i64 rows, i64 unit, i64 n, float* tile) {
        fill_tile(tile, args, gate_rows, h, d.hh_panels, rows, unit, n);
        for (i64 r = 0; r < rows; ++r)
            for_floats(0, n, [&](auto at) __attribute__((always_inline)) {
                const float* row = tile + r * tile_columns;
                put_gates(at, gate_rows + r * args.ldg + unit, args.hidden, sigmoid(at(row)),
                          sigmoid(at(row + panel_width)), tanh(at(row + 2 * panel_width)),
                          sigmoid(at(row + 3 * panel_width)));
            });
    });
}

// The gradient of the projection's weight.
void differentiate_projection(const LstmBackward& args, const LstmBackward::Direction& d) {
    if (!d.dweight_hr) return;
    LinearBackward p{};
    p.dy = d.dprojection;
    p.ldy = p.n = args.width;
    p.m = args.sequences.tokens;
    p.k = args.hidden;
    p.x = d.m;
    p.ldx = args.ldm;
    p.dweight = d.dweight_hr;
    p.add_to_dweight = d.add_to_dweight_hr;
    linear_backward(p);
}

}  // namespace

void lstm_forward(const LstmForward& args) {
    const Sequences& s = args.sequences;
    const i64 hidden = args.hidden;
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        if (d.c_rows) sort_states(s, d.c_rows, d.c0, hidden);
        for (i64 b = 0; b < s.batch; ++b) copy_row(d.c_n + b * hidden, d.c0 ? d.c0 + b * hidden : nullptr, hidden);
    }
    const Pieces pieces(args);
    const i64 phases = args.direction[0].hr_panels ? 2 : 1;
    run_forward(args, phases, scratch_floats, pieces,
                [&](const LstmForward::Direction& d, i64 t, i64 phase, i64 part, i64 first_row, float* tile) {
                    if (phase == 0)
                        step_units(args, d, pieces, t, part, first_row, tile);
                    else
                        step_projection(args, d, pieces, t, part);
                });
}

void lstm_backward(const LstmBackward& args) {
    const Sequences& s = args.sequences;
    for (i64 i = 0; i < args.directions; ++i) sort_states(s, args.direction[i].dc, args.direction[i].dc_n, args.hidden);
    const Pieces pieces(args);
    const i64 phases = args.direction[0].dprojection ? 2 : 1;
    run_backward(
        args, phases, scratch_floats, pieces, [&](const LstmBackward::Direction& d) { compute_gates_again(args, d); },
        [&](const LstmBackward::Direction& d, i64 t, i64 phase, i64 part, float* dm) {
            if (phase == 0)
                step_dh(args, d, pieces, t, part, dm);
            else
                step_dm(args, d, pieces, t, part, dm);
        });
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        unsort_states(s, d.dc0, d.dc, args.hidden);
        differentiate_h(args, d, d.dgates);
        differentiate_projection(args, d);
    }
}

}  // namespace fastattn::FASTATTN_ISA
