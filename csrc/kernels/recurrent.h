// What the recurrent layers share: the order of their rows, and the products of a step.
#pragma once

#include "../parallel.h"
#include "gemm.h"

namespace fastattn::FASTATTN_ISA {

void linear_forward(const LinearForward& args);
void linear_backward(const LinearBackward& args);

namespace {

// Row r of step t stands at step_begin[t] + r. Arrays with the states of all steps begin with `batch` rows for the
// states before the first one: there a row's own state is found at state_row, the one before it at previous_row.
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
FASTATTN_INLINE void for_rows(const Sequences& s, i64 dim, F f) {
    struct Context {
        const Sequences* s;
        F* f;
    } context{&s, &f};
    const i64 rows_of_step = greater(1, s.steps ? s.tokens / s.steps : 1);
    parallel_for(
        s.steps, greater(1, 65536 / greater(1, dim * rows_of_step)),
        [](void* context, i64 begin, i64 end, void*) {
            const auto& [s, f] = *static_cast<Context*>(context);
            for (i64 t = begin; t < end; ++t)
                for (i64 r = 0; r < step_rows(*s, t); ++r) (*f)(t, r);
        },
        &context);
}

// rows = the rows of x, which are in the order of the tokens, in time-major order.
FASTATTN_INLINE void gather_rows(const Sequences& s, float* rows, const float* x, i64 ldx, i64 dim, bool reverse) {
    for_rows(s, dim, [&](i64 t, i64 r) {
        copy_row(rows + (s.step_begin[t] + r) * dim, x + token_of(s, t, r, reverse) * ldx, dim);
    });
}

// x (+)= rows
FASTATTN_INLINE void scatter_rows(const Sequences& s, float* x, const float* rows, i64 dim, bool reverse, bool add) {
    for_rows(s, dim, [&](i64 t, i64 r) {
        float* to = x + token_of(s, t, r, reverse) * dim;
        const float* from = rows + (s.step_begin[t] + r) * dim;
        if (!add) return copy_row(to, from, dim);
        for_vectors(dim, [&](i64 i, i64 n) { store_n(to + i, load_n(to + i, n) + load_n(from + i, n), n); });
    });
}

// previous_h: for every row the state that it began with.
FASTATTN_INLINE void gather_previous(const Sequences& s, float* previous, const float* states, i64 dim) {
    for_rows(s, dim, [&](i64 t, i64 r) {
        copy_row(previous + (s.step_begin[t] + r) * dim, states + previous_row(s, t, r) * dim, dim);
    });
}

// The first states, one for each sequence in the order of the batch, as the first rows of `rows`.
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

// C[rows, columns] = A[rows, depth] B, or goes on from what C holds; B in panels. A few rows as a step has them.
struct StepProduct {
    const float* a;
    const float* panels;
    float* c;
    i64 lda, ldc, rows, columns, depth;
    bool resume;
};

FASTATTN_INLINE void multiply_step(const StepProduct& p) {
    const i64 blocks = (p.depth + depth_block - 1) / depth_block;
    const i64 depth = round_up((p.depth + blocks - 1) / blocks, panel_width);
    const RowTiles tiles(lesser(p.rows, row_block));
    Tile t;
    t.lda = p.lda;
    t.ldc = p.ldc;
    t.panel_stride = p.depth * panel_width;
    t.columns = p.columns;
    t.bias = nullptr;
    // What comes next in memory: further on in the panels when one tile reads them, else the panels after these.
    t.ahead = tiles.count == 1 ? 2048 : greater(1, tiles.columns() / panel_width) * t.panel_stride;
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

// What x gives the gates of the steps [first, last), for the direction d.
template <typename Args, typename Direction>
FASTATTN_INLINE void multiply_x(const Args& args, const Direction& d, const float* x, i64 ldx, i64 gates, i64 first,
                                i64 last) {
    const i64 begin = args.sequences.step_begin[first];
    LinearForward p{};
    p.y = d.gates;
    p.ldy = args.ldg;
    p.x = x + begin * ldx;
    p.ldx = ldx;
    p.panels = d.ih_panels;
    p.weight = d.weight_ih;
    p.ldw = d.ld_ih;
    p.bias = d.bias_ih;
    p.m = args.sequences.step_begin[last] - begin;
    p.n = gates * args.hidden;
    p.k = args.input;
    linear_forward(p);
}

// The forward pass of all directions: run(first, last) computes the steps of a chunk, whose gates have what x gave
// them.
template <typename Args, typename Run>
FASTATTN_INLINE void run_forward(const Args& args, i64 gates, i64 width, Run run) {
    const Sequences& s = args.sequences;
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        sort_states(s, d.h_rows, d.h0, width);
        if (d.x_rows) gather_rows(s, d.x_rows, d.x, d.ldx, args.input, d.reverse);
    }
    for (i64 first = 0, last; first < s.steps; first = last) {
        last = first + 1;
        while (last < s.steps && s.step_begin[last + 1] - s.step_begin[first] <= args.gate_rows) ++last;
        for (i64 i = 0; i < args.directions; ++i) {
            const auto& d = args.direction[i];
            multiply_x(args, d, d.x_rows ? d.x_rows : d.x, d.x_rows ? args.input : d.ldx, gates, first, last);
        }
        run(first, last);
    }
    for (i64 i = 0; i < args.directions; ++i) {
        const auto& d = args.direction[i];
        for (i64 r = 0; r < s.batch; ++r)
            copy_row(d.h_n + s.order[r] * width, d.h_rows + last_row(s, r) * width, width);
    }
}

// Gradients of x and of the weight that multiplies it, from `dgates`, those of what it gave the gates.
template <typename Args, typename Direction>
FASTATTN_INLINE void differentiate_x(const Args& args, const Direction& d, const float* dgates, i64 ld, i64 gates) {
    LinearBackward p{};
    p.dy = dgates;
    p.ldy = ld;
    p.x = d.x_rows;
    p.ldx = d.ldx;
    p.panels = d.ih_panels;
    p.weight = d.weight_ih;
    p.ldw = d.ld_ih;
    p.m = args.sequences.tokens;
    p.n = gates * args.hidden;
    p.k = args.input;
    p.dx = d.dx ? d.dx_rows : nullptr;
    p.dweight = d.dweight_ih;
    p.add_to_dweight = d.add_to_dweight_ih;
    p.dbias = d.dbias_ih;
    p.add_to_dbias = d.add_to_dbias_ih;
    p.block_sums = d.dbias_ih ? d.block_sums : nullptr;
    if (p.dx || p.dweight || p.dbias) linear_backward(p);
    if (d.dx && d.dx != d.dx_rows) scatter_rows(args.sequences, d.dx, d.dx_rows, args.input, d.reverse, d.add_to_dx);
}

// The gradient of the weight that multiplies the state before each step, from those of what it gave the gates.
template <typename Args, typename Direction>
FASTATTN_INLINE void differentiate_h(const Args& args, const Direction& d, const float* dgates, i64 ld, i64 gates,
                                     i64 width) {
    const Sequences& s = args.sequences;
    if (!d.dweight_hh) return;
    const i64 skipped = d.starts_from_zero && s.steps ? s.step_begin[1] : 0;  // they multiply zeros
    LinearBackward p{};
    p.dy = dgates + skipped * ld;
    p.ldy = ld;
    p.x = d.previous_h + skipped * width;
    p.ldx = width;
    p.m = s.tokens - skipped;
    p.n = gates * args.hidden;
    p.k = width;
    p.dweight = d.dweight_hh;
    p.add_to_dweight = d.add_to_dweight_hh;
    linear_backward(p);
}

// tile [rows, gates * 16] += h W_hh^T for the units [unit, unit + 16), h [rows, width].
FASTATTN_INLINE void multiply_h(float* tile, i64 gates, const float* h, i64 width, const float* panels, i64 rows,
                                i64 unit) {
    StepProduct p{};
    p.a = h;
    p.lda = p.depth = width;
    p.panels = panels + unit * gates * width;
    p.c = tile;
    p.ldc = p.columns = gates * panel_width;
    p.rows = rows;
    p.resume = true;
    multiply_step(p);
}

// The gates of all rows once more, by blocks: visit(their rows, the h before them or null, how many, unit, n, a tile),
// as a step of the forward pass has them.
template <typename Args, typename Direction, typename Visit>
FASTATTN_INLINE void revisit_gates(const Args& args, const Direction& d, i64 gates, i64 width, Visit visit) {
    struct Context {
        const Args& args;
        const Direction& d;
        i64 width;
        Visit& visit;
    } context{args, d, width, visit};
    multiply_x(args, d, d.x_rows, d.ldx, gates, 0, args.sequences.steps);
    parallel_for((args.hidden + panel_width - 1) / panel_width, 1,
                 [](void* opaque, i64 block, i64, void* tile) {
                     const Context& c = *static_cast<Context*>(opaque);
                     const Sequences& s = c.args.sequences;
                     const i64 unit = block * panel_width, n = lesser(panel_width, c.args.hidden - unit);
                     const i64 from_zero = c.d.starts_from_zero ? s.step_begin[1] : 0;
                     for (i64 first = 0, last; first < s.tokens; first = last) {
                         last = lesser(first < from_zero ? from_zero : s.tokens, first + row_block);
                         const float* h = first < from_zero ? nullptr : c.d.previous_h + first * c.width;
                         c.visit(c.d.gates + first * c.args.ldg, h, last - first, unit, n, static_cast<float*>(tile));
                     }
                 },
                 &context, row_block * gates * panel_width * i64{sizeof(float)});
}

// The work of a phase: `directions` times `parts` pieces, each some blocks of 16 columns; done by one thread where
// there is too little for two.
struct Pieces {
    Pieces(i64 directions, i64 columns, i64 multiply_adds_of_phase) {
        const i64 blocks = (columns + panel_width - 1) / panel_width;
        parts = lesser(lesser(blocks, most_pieces / directions), greater(1, 2 * num_threads() / directions));
        all = directions * parts;
        count = multiply_adds_of_phase < (1 << 18) ? 1 : all;
    }
    // f(direction, part) for the pieces that the piece'th of parallel_phases stands for.
    template <typename F>
    inline __attribute__((always_inline)) void visit(i64 piece, F f) const {
        for (i64 i = piece * all / count; i < (piece + 1) * all / count; ++i) f(i / parts, i % parts);
    }
    // Of `columns` columns those of a part, whole blocks of 16.
    i64 begin(i64 part, i64 columns) const {
        const i64 blocks = (columns + panel_width - 1) / panel_width;
        return lesser(columns, part * blocks / parts * panel_width);
    }
    i64 parts, all, count;
};

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
