// The matrix multiplication that carries linear layers and attention: C = A B, with B in panels (packing.h).
//
// Every element of C is one chain of FMAs over the depth, starting at 0; a later depth block loads the partial sum and
// continues. The bits of the result depend neither on the tile, nor on the blocking, nor on the thread.
#pragma once

#include "../packing.h"
#include "../simd/simd.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Blocking, as measured: a tile streams its panels from the second-level cache as fast as it multiplies, so the depth
// is cut only when rows and panels together outgrow that cache. A row block of A stays there while the panels pass over
// it.
#if defined(__AVX512F__) && !defined(FASTATTN_GENERIC)
constexpr i64 depth_block = 256, row_block = 168;
#else
constexpr i64 depth_block = 1024, row_block = 96;
#endif

// A tile is R rows by vectors(R) registers; its accumulators, one row of B and one value of A fill the register file.
// A tile with few rows has more columns instead, to keep enough independent chains in flight.
#if defined(FASTATTN_GENERIC)
constexpr int max_rows = 6;  // 6 x 8: sixteen registers of four floats
constexpr int common_rows = 6;
constexpr int vectors(int rows) { return rows == 1 ? 4 : 2; }
#elif defined(__AVX512F__)
constexpr int max_rows = 14;    // 14 x 32 reads every weight once: best when all rows fit into one tile
constexpr int common_rows = 6;  // 6 x 64
constexpr int vectors(int rows) { return rows == 1 ? 8 : rows <= common_rows ? 4 : 2; }
#elif defined(__AVX2__)
constexpr int max_rows = 6;  // 6 x 16
constexpr int common_rows = 6;
constexpr int vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }
#elif defined(__ARM_NEON)
constexpr int max_rows = 6;  // 6 x 16
constexpr int common_rows = 6;
constexpr int vectors(int rows) { return rows <= 2 ? 8 : 4; }
#endif

// What one step over a line of B, 64 bytes of a panel, adds to an element of C.
enum class Operation {
    fma,           // a b
    fma_bfloat16,  // a b, then the same with the next ones of A and B: a line holds pairs
    dot_pairs,     // the four products of bytes, for two lines at once
    dot,           // for one line
};

// How A lies in memory.
enum class LayoutA {
    rows,            // [rows][depth], row stride lda
    columns,         // [depth][rows], stride lda: the transpose of A
    packed_columns,  // tile after tile (RowTiles), each [depth][rows of the tile]
};

// A and B are floats, or whatever fills the 32 bits of one: four bytes, or a pair of bfloat16 in B.
struct Tile {
    const float* a;     // [rows, depth]
    const float* b;     // first panel, at the tile's first column
    float* c;           // [rows, columns], row stride ldc
    const float* bias;  // [columns] or null
    i64 lda, ldc;
    i64 panel_stride;    // floats from one panel to the next
    i64 row_stride;      // and from one row to the next, if B is not packed
    i64 depth, columns;  // depth: floats of A
    i64 ahead;           // floats from b to the data that is prefetched (a prefetch cannot fault),
    i64 ahead_last;      // the same for the last of the tiles that lie side by side,
    i64 ahead_step;      // and how many bytes to advance there for each step of the depth
    bool resume;         // continue from the partial sums in c
    Operation operation = Operation::fma;
};

template <Operation Op>
FASTATTN_INLINE vf multiply_add(vf x, vf y, vf acc) {
    if constexpr (Op == Operation::dot)
        return dot(x, y, acc);
    else
        return fma(x, y, acc);
}

// A weight as a float: of the line y, or of one of the pairs in it.
template <int Half>
FASTATTN_INLINE vf weight_of_line(vf y) {
    return Half < 0 ? y : Half == 0 ? low_bfloat16(y) : high_bfloat16(y);
}

// One step of the depth: A's column at a, times a line of B, at b in each panel.
template <Operation Op, int Half = -1, int R, int NV, int Panels>
FASTATTN_INLINE void multiply_line(vf (&acc)[R][NV], const float* a, i64 row, const float* b,
                                   const i64 (&panel)[Panels]) {
    if constexpr (R < NV) {
        vf x[R];
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) x[r] = set1(a[r * row]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const vf y = weight_of_line<Half>(load(b + panel[v * W / panel_width] + v * W % panel_width));
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) acc[r][v] = multiply_add<Op>(x[r], y, acc[r][v]);
        }
    } else {
        vf y[NV];
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v)
            y[v] = weight_of_line<Half>(load(b + panel[v * W / panel_width] + v * W % panel_width));
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const vf x = set1(a[r * row]);
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[r][v] = multiply_add<Op>(x, y[v], acc[r][v]);
        }
    }
}

// Two steps, of bytes. The lines are operands in memory: there are too few registers.
template <int R, int NV, int Panels>
FASTATTN_INLINE void multiply_lines(vf (&acc)[R][NV], const float* a, i64 row, const float* b,
                                    const i64 (&panel)[Panels]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        const vf x = set1(a[r * row]), next = set1(a[r * row + 1]);
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) {
            const float* line = b + panel[v * W / panel_width] + v * W % panel_width;
            acc[r][v] = dot_pairs(x, line, next, line + panel_width, acc[r][v]);
        }
    }
}

template <int R, int NV, bool ByColumns, bool Packed = true, Operation Op = Operation::fma>
void multiply_tile(const Tile& t) {
    constexpr int panels = NV * W > panel_width ? NV * W / panel_width : 1;
    vf acc[R][NV];
    const float* a = t.a;
    const float* b = t.b;
    const i64 lda = t.lda;
    const i64 stride = t.panel_stride, row_stride = Packed ? panel_width : t.row_stride;
    i64 panel[panels] = {};  // where each panel begins; past the end of the matrix, the last panel again
#pragma GCC unroll 4
    for (int p = 1; p < panels; ++p) panel[p] = lesser(p, (t.columns - 1) / panel_width) * stride;
    if (t.resume) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) {
                const float* c = t.c + r * t.ldc + v * W;
                acc[r][v] = t.columns >= (v + 1) * W ? load(c) : load_first(c, greater(0, t.columns - v * W));
            }
        }
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) acc[r][v] = zero();
        }
    }
    const i64 row = ByColumns ? 1 : lda, step = ByColumns ? lda : 1;
    const char* ahead = reinterpret_cast<const char*>(b + t.ahead);
    const i64 ahead_step = t.ahead_step;
    constexpr i64 at_once = Op == Operation::fma_bfloat16 || Op == Operation::dot_pairs ? 2 : 1;
    constexpr i64 lines = Op == Operation::dot_pairs ? 2 : 1;
    for (i64 k = t.depth / at_once; k > 0; --k) {
        // Fewer rows read several panels at a time, which the processor prefetches itself.
        if constexpr (R > 2 && Packed) {
#pragma GCC unroll 2
            for (i64 line = 0; line < lines; ++line) {
#pragma GCC unroll 8
                for (int p = 0; p < panels; ++p) __builtin_prefetch(ahead + panel[p] * i64{sizeof(float)});
                ahead += ahead_step;
            }
        }
        if constexpr (Op == Operation::dot_pairs) {
            multiply_lines(acc, a, row, b, panel);
        } else if constexpr (Op == Operation::fma_bfloat16) {
            multiply_line<Op, 0>(acc, a, row, b, panel);
            asm volatile("" : "+r"(b) : : "memory");  // reads nothing ahead, and the line again: there is no register
            multiply_line<Op, 1>(acc, a + step, row, b, panel);
        } else {
            multiply_line<Op>(acc, a, row, b, panel);
        }
        a += at_once * step;
        b += lines * row_stride;
#ifdef __clang__
        // Clang would keep other pointers instead, and shuffle all accumulators of 6 x 64 in each step.
        asm("" : "+r"(a), "+r"(b));
#endif
    }
    if constexpr (Op == Operation::fma_bfloat16)
        if (t.depth % 2) multiply_line<Op, 0>(acc, a, row, b, panel);
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
        const i64 n = lesser(t.columns - v * W, W);
        if (n <= 0) break;
        const vf bias = t.bias ? load_n(t.bias + v * W, n) : zero();
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) store_n(t.c + r * t.ldc + v * W, t.bias ? acc[r][v] + bias : acc[r][v], n);
    }
}

using MultiplyTile = void (*)(const Tile&);

struct TileFunctions {
    MultiplyTile by_layout[2];  // A by rows, A by columns
    MultiplyTile others[3];     // the other operations, A by rows
};

template <int R>
constexpr TileFunctions tile_of_rows() {
    constexpr int v = vectors(R);
    constexpr Operation dot = dot_product == DotProduct::none ? Operation::dot_pairs : Operation::dot;
    return {{multiply_tile<R, v, false>, multiply_tile<R, v, true>},
            {multiply_tile<R, v, false, true, Operation::fma_bfloat16>,
             multiply_tile<R, v, false, true, Operation::dot_pairs>, multiply_tile<R, v, false, true, dot>}};
}

constexpr TileFunctions tile_functions[] = {
    {},
    tile_of_rows<1>(),
    tile_of_rows<2>(),
    tile_of_rows<3>(),
    tile_of_rows<4>(),
    tile_of_rows<5>(),
    tile_of_rows<6>(),
#if defined(__AVX512F__) && !defined(FASTATTN_GENERIC)
    tile_of_rows<7>(),
    tile_of_rows<8>(),
    tile_of_rows<9>(),
    tile_of_rows<10>(),
    tile_of_rows<11>(),
    tile_of_rows<12>(),
    tile_of_rows<13>(),
    tile_of_rows<14>(),
#endif
};
static_assert(sizeof tile_functions / sizeof *tile_functions == max_rows + 1);

// How `rows` rows are split into tiles of nearly equal height.
struct RowTiles {
    explicit RowTiles(i64 rows) : count(rows <= max_rows ? 1 : (rows + common_rows - 1) / common_rows) {
        height = rows / count;
        higher = rows % count;
    }
    i64 rows(i64 tile) const { return height + (tile < higher); }
    i64 columns() const { return vectors(static_cast<int>(height + (higher > 0))) * W; }
    i64 count;   // tiles
    i64 height;  // rows of a tile,
    i64 higher;  // the first `higher` tiles have one more
};

// C[rows, columns] = A[rows, depth] B[depth, columns]: one depth block, every tile by one pass over its panels.
// `finish(column, columns)` is called for the columns that are complete.
template <LayoutA Layout = LayoutA::rows, typename Finish>
FASTATTN_INLINE void multiply_block(Tile t, i64 rows, Finish finish) {
    if (rows <= 0) return;
    const RowTiles tiles(rows);
    const i64 width = tiles.columns();
    const i64 columns = t.columns;
    const Tile block = t;
    const i64 lines = t.operation == Operation::fma_bfloat16 ? t.depth / 2 : t.depth;
    t.ahead_step = 64 / tiles.count;  // together the tiles prefetch as many lines as each one reads
    for (i64 column = 0; column < columns; column += width) {
        t.b = block.b + column / panel_width * block.panel_stride + column % panel_width;
        t.columns = lesser(columns - column, width);
        t.bias = block.bias ? block.bias + column : nullptr;
        const i64 ahead = column + width < columns ? block.ahead : block.ahead_last;
        i64 row = 0;
        for (i64 i = 0; i < tiles.count; ++i) {
            const i64 height = tiles.rows(i);
            t.a = block.a + row * (Layout == LayoutA::rows ? block.lda : Layout == LayoutA::columns ? 1 : block.depth);
            if (Layout == LayoutA::packed_columns) t.lda = height;
            t.c = block.c + row * block.ldc + column;
            t.ahead = ahead + i * (t.ahead_step * lines / i64{sizeof(float)});
            const TileFunctions& functions = tile_functions[height];
            if (t.operation == Operation::fma)
                functions.by_layout[Layout != LayoutA::rows](t);
            else
                functions.others[static_cast<int>(t.operation) - 1](t);
            row += height;
        }
        finish(column, t.columns);
    }
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
