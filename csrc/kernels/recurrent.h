// Shared by the recurrent layers: the order of their rows, the products of a step, and the frame of both passes.
#pragma once

#include "../parallel.h"
#include "gemm.h"
#include "product.h"

namespace fastattn::FASTATTN_ISA {

void linear_forward(const LinearForward& args);
void linear_backward(const LinearBackward& args);

namespace {

// Row r of step t is row step_begin[t] + r. An array with the states of all steps starts with `batch` rows, the states
// before the first step. In it, state_row is a row's own state and previous_row the state before it.
FASTATTN_INLINE i64 step_rows(const Sequences& s, i64 t) { return s.step_begin[t + 1] - s.step_begin[t]; }
FASTATTN_INLINE i64 state_row(const Sequences& s, i64 t, i64 r) { return s.batch + s.step_begin[t] + r; }
FASTATTN_INLINE i64 previous_row(const Sequences& s, i64 t, i64 r) { return t == 0 ? r : state_row(s, t - 1, r); }
FASTATTN_INLINE i64 last_row(const Sequences& s, i64 r) {
    const i64 length = s.cu_seqlens[s.order[r] + 1] - s.cu_seqlens[s.order[r]];
    return previous_row(s, length, r);
}
FASTATTN_INLINE i64 token_of(const Sequences& s, i64 t, i64 r, bool reverse) {
    const std::int32_t* begin = s.cu_seqlens + s.order[r];
    return reverse ? begin[1] - 1 - t : begin[0] + t;
}

FASTATTN_INLINE void copy_row(float* to, const float* from, i64 dim) {
    if (from)
        __builtin_memcpy(to, from, static_cast<std::size_t>(dim) * sizeof(float));
    else
        __builtin_memset(to, 0, static_cast<std::size_t>(dim) * sizeof(float));
}

// f(t, r) for every row, by several threads.
template <typename F>
FASTATTN_INLINE void for_steps(const Sequences& s, i64 dim, const F& f) {
    const i64 rows_of_step = greater(1, s.steps ? s.tokens / s.steps : 1);
    parallel_for(s.steps, greater(1, 65536 / greater(1, dim * rows_of_step)), [&](i64 begin, i64 end, float*) {
        for (i64 t = begin; t < end; ++t)
            for (i64 r = 0; r < step_rows(s, t); ++r) f(t, r);
    });
}

// rows = the rows of x, which are in the order of the tokens, in time-major order.
FASTATTN_INLINE void gather_rows(const Sequences& s, float* rows, const float* x, i64 ldx, i64 dim, bool reverse) {
    for_steps(s, dim, [&](i64 t, i64 r) {
        copy_row(rows + (s.step_begin[t] + r) * dim, x + token_of(s, t, r, reverse) * ldx, dim);
    });
}

// x (+)= rows
FASTATTN_INLINE void scatter_rows(const Sequences& s, float* x, const float* rows, i64 dim, bool reverse, bool add) {
    for_steps(s, dim, [&](i64 t, i64 r) {
        float* to = x + token_of(s, t, r, reverse) * dim;
        const float* from = rows + (s.step_begin[t] + r) * dim;
        if (!add) return copy_row(to, from, dim);
        for_vectors(dim, [&](i64 i, i64 n) { store_n(to + i, load_n(to + i, n) + load_n(from + i, n), n); });
    });
}

// previous_h: the state before each row.
FASTATTN_INLINE void gather_previous(const Sequences& s, float* previous, const float* states, i64 dim) {
    for_steps(s, dim, [&](i64 t, i64 r) {
        copy_row(previous + (s.step_begin[t] + r) * dim, states + previous_row(s, t, r) * dim, dim);
    });
}

// Copies the initial states, one per sequence in the order of the batch, to the first rows of `rows`.
FASTATTN_INLINE void sort_states(const Sequences& s, float* rows, const float* states, i64 dim) {
    for (i64 r = 0; r < s.batch; ++r) copy_row(rows + r * dim, states ? states + s.order[r] * dim : nullptr, dim);
}
FASTATTN_INLINE void unsort_states(const Sequences& s, float* states, const float* rows, i64 dim) {
    for (i64 r = 0; r < s.batch; ++r) copy_row(states + s.order[r] * dim, rows + r * dim, dim);
}

// 16 floats from the first `n` of `from`, 0 beyond.
FASTATTN_INLINE void copy_units(float* to, const float* from, i64 n) {
    if (n == panel_width)
        __builtin_memcpy(to, from, panel_width * sizeof(float));
    else
        for_vectors(panel_width, [&](i64 i, i64) { store(to + i, load_n(from + i, greater(0, lesser(W, n - i)))); });
}

// C[rows, columns] = A[rows, depth] B, or += with `resume`; B in panels. For the few rows of a step.
struct StepProduct {
    const float* a;
    const float* panels;
    float* c;
    i64 lda, ldc, rows, columns, depth;
    bool resume;
};

FASTATTN_INLINE void multiply_step(const StepProduct& p) {
    const i64 depth = round_up(divide_up(p.depth, divide_up(p.depth, depth_block)), panel_width);
    const RowTiles tiles(lesser(p.rows, row_block));
    Tile t;
    t.lda = p.lda;
    t.ldc = p.ldc;
    t.panel_stride = p.depth * panel_width;
    t.columns = p.columns;
    t.bias = nullptr;
    // The next data in memory: further on in the panels if one tile reads them, otherwise the panels after these.
    t.ahead = t.ahead_last = tiles.count == 1 ? 2048 : greater(1, tiles.columns() / panel_width) * t.panel_stride;
    for (i64 row = 0; row < p.rows; row += row_block) {
        for (i64 k = 0; k < p.depth; k += depth) {
            t.a = p.a + row * p.lda + k;
            t.b = p.panels + k * panel_width;
            t.c = p.c + row * p.ldc;
            t.depth = lesser(depth, p.depth - k);
            t.resume = p.resume || k > 0;
            multiply_block(t, lesser(row_block, p.rows - row), [](i64, i64) {});
        }
    }
}

// tile [rows, Gates * 16] += h W_hh^T for the units [unit, unit + 16), h [rows, width]. The compiler knows the width of
// the tile.
template <i64 Gates>
FASTATTN_INLINE void multiply_h(float* tile, const Recurrent& args, const float* h, const float* panels, i64 rows,
                                i64 unit) {
    StepProduct p{};
    p.a = h;
    p.lda = p.depth = args.width;
    p.panels = panels + unit * Gates * args.width;
    p.c = tile;
    p.ldc = p.columns = Gates * panel_width;
    p.rows = rows;
    p.resume = true;
    multiply_step(p);
}

// The part of x, which is time-major, in the gates of the steps [first, last).
template <typename Direction>
FASTATTN_INLINE void multiply_x(const Recurrent& args, const Direction& d, const float* x, i64 ldx, i64 first,
                                i64 last) {
    const i64 begin = args.sequences.step_begin[first];
    LinearForward p{};
    p.y = d.gates;
    p.ldy = args.ldg;
    p.x = x + begin * ldx;
    p.ldx = ldx;
    p.weight = d.weight_ih;
    p.bias = d.bias_ih;
    p.m = args.sequences.step_begin[last] - begin;
    p.n = args.gates * args.hidden;
    p.k = args.input;
    linear_forward(p);
}

// The work of a phase: `directions` times `parts` pieces, each some blocks of 16 columns. One thread does all pieces
// if there is too little work for two.
struct Pieces {
    explicit Pieces(const Recurrent& args) {
        const i64 rows = args.sequences.steps ? step_rows(args.sequences, 0) : 0;
        const i64 work = rows * args.gates * args.hidden * args.width * args.directions;
        const i64 blocks = divide_up(args.hidden, panel_width);
        parts = lesser(lesser(blocks, most_pieces / args.directions), greater(1, 2 * num_threads() / args.directions));
        all = args.directions * parts;
        count = work < (1 << 18) ? 1 : all;
    }
    // f(direction, part) for the pieces that make up piece `piece` of parallel_phases.
    template <typename F>
    inline __attribute__((always_inline)) void visit(i64 piece, F f) const {
        for (i64 i = piece * all / count; i < (piece + 1) * all / count; ++i) f(i / parts, i % parts);
    }
    // A part of `columns` columns, in whole blocks of 16.
    i64 begin(i64 part, i64 columns) const {
        return lesser(columns, part * divide_up(columns, panel_width) / parts * panel_width);
    }
    i64 end(i64 part, i64 columns) const { return begin(part + 1, columns); }
    // f(first column, how many, first row, last row) for the columns of a part, 16 at a time, and blocks of the rows.
    template <typename F>
    inline __attribute__((always_inline)) void for_blocks(i64 part, i64 columns, i64 rows, F f) const {
        for (i64 column = begin(part, columns); column < end(part, columns); column += panel_width)
            for (i64 first = 0; first < rows; first += row_block)
                f(column, lesser(panel_width, columns - column), first, lesser(rows, first + row_block));
    }
    i64 parts, all, count;
};

// A forward pass, by chunks of steps: x's part of the gates, then `phases` phases per step. step(d, t, phase of the
// step, part, the chunk's first row of gates, scratch) does one piece of a phase.
template <typename Args, typename Step>
FASTATTN_INLINE void run_forward(const Args& args, i64 phases, i64 scratch_floats, const Pieces& pieces,
                                 const Step& step) {
    const Sequences& s = args.sequences;
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        sort_states(s, d.h_rows, d.h0, args.width);
        if (d.x_rows) gather_rows(s, d.x_rows, d.x, d.ldx, args.input, d.reverse);
    }
    for (i64 first = 0, last; first < s.steps; first = last) {
        last = first + 1;
        while (last < s.steps && s.step_begin[last + 1] - s.step_begin[first] <= args.gate_rows) ++last;
        for (i64 i = 0; i < args.directions; ++i) {
            const auto& d = args.direction[i];
            multiply_x(args, d, d.x_rows ? d.x_rows : d.x, d.x_rows ? args.input : d.ldx, first, last);
        }
        parallel_phases((last - first) * phases, pieces.count,
                        [&](i64 phase, i64 piece, float* scratch) {
                            pieces.visit(piece, [&](i64 i, i64 part) {
                                step(args.direction[i], first + phase / phases, phase % phases, part,
                                     s.step_begin[first], scratch);
                            });
                        },
                        scratch_floats);
    }
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        for (i64 r = 0; r < s.batch; ++r)
            copy_row(d.h_n + s.order[r] * args.width, d.h_rows + last_row(s, r) * args.width, args.width);
    }
}

// Recomputes x's part of the gates of all rows, then calls visit(gate rows, the h before them or null, number of rows,
// unit, n, tile) for blocks of them.
template <typename Direction, typename Visit>
FASTATTN_INLINE void revisit_gates(const Recurrent& args, const Direction& d, const Visit& visit) {
    const Sequences& s = args.sequences;
    multiply_x(args, d, d.x_rows, d.ldx, 0, s.steps);
    const auto visit_block = [&](i64 block, i64, float* tile) {
        const i64 unit = block * panel_width, n = lesser(panel_width, args.hidden - unit);
        const i64 from_zero = d.starts_from_zero ? s.step_begin[1] : 0;
        for (i64 first = 0, last; first < s.tokens; first = last) {
            last = lesser(first < from_zero ? from_zero : s.tokens, first + row_block);
            const float* h = first < from_zero ? nullptr : d.previous_h + first * args.width;
            visit(d.gates + first * args.ldg, h, last - first, unit, n, tile);
        }
    };
    parallel_for(divide_up(args.hidden, panel_width), 1, visit_block, row_block * args.gates * panel_width);
}

// The gradient of x or, with `of_weights`, the gradients of W_ih and its bias.
FASTATTN_INLINE void differentiate_x(const RecurrentBackward& args, const BackwardDirection& d, bool of_weights) {
    LinearBackward p{};
    p.dy = d.dgates;
    p.ldy = args.ldd;
    p.x = d.x_rows;
    p.ldx = d.ldx;
    p.weight = d.weight_ih;
    p.m = args.sequences.tokens;
    p.n = args.gates * args.hidden;
    p.k = args.input;
    if (of_weights) {
        p.dweight = d.dweight_ih;
        p.add_to_dweight = d.add_to_dweight_ih;
        p.dbias = d.dbias_ih;
        p.add_to_dbias = d.add_to_dbias_ih;
        p.block_sums = d.block_sums;
        if (p.dweight || p.dbias) linear_backward(p);
        return;
    }
    if (!d.dx) return;
    p.dx = d.dx_rows;
    linear_backward(p);
    if (d.dx != d.dx_rows) scatter_rows(args.sequences, d.dx, d.dx_rows, args.input, d.reverse, d.add_to_dx);
}

// The gradient of W_hh.
FASTATTN_INLINE void differentiate_h(const RecurrentBackward& args, const BackwardDirection& d, const float* dgates) {
    const Sequences& s = args.sequences;
    if (!d.dweight_hh) return;
    const i64 skipped = d.starts_from_zero && s.steps ? s.step_begin[1] : 0;  // their h is zero
    LinearBackward p{};
    p.dy = dgates + skipped * args.ldd;
    p.ldy = args.ldd;
    p.x = d.previous_h + skipped * args.width;
    p.ldx = args.width;
    p.m = s.tokens - skipped;
    p.n = args.gates * args.hidden;
    p.k = args.width;
    p.dweight = d.dweight_hh;
    p.add_to_dweight = d.add_to_dweight_hh;
    linear_backward(p);
}

// A backward pass, from the last step to -1, which stands for the initial states: `phases` phases per step, one for -1.
// step(d, t, phase of the step, part, scratch) does one piece of a phase. `again(d)` recomputes gates not kept.
template <typename Args, typename Again, typename Step>
FASTATTN_INLINE void run_backward(const Args& args, i64 phases, i64 scratch_floats, const Pieces& pieces,
                                  const Again& again, const Step& step) {
    const Sequences& s = args.sequences;
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        sort_states(s, d.dh, d.dh_n, args.width);
        if (d.previous_h) gather_previous(s, d.previous_h, d.h_rows, args.width);
        if (d.hh_panels && s.steps) again(d);
    }
    if (s.steps)
        parallel_phases(
            phases * s.steps + 1, pieces.count,
            [&](i64 phase, i64 piece, float* scratch) {
                pieces.visit(piece, [&](i64 i, i64 part) {
                    step(args.direction[i], s.steps - 1 - phase / phases, phase % phases, part, scratch);
                });
            },
            scratch_floats);
    for (i64 i = 0; i < args.directions; ++i) {
        unsort_states(s, args.direction[i].dh0, args.direction[i].dh, args.width);
        differentiate_x(args, args.direction[i], false);
    }
    reserve_for_products_by_columns();  // the code below adds to the caller's arrays
    for (i64 i = 0; i < args.directions; ++i) differentiate_x(args, args.direction[i], true);
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
