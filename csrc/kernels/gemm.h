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

// How A lies in memory.
enum class LayoutA {
    rows,            // [rows][depth], row stride lda
    columns,         // [depth][rows], stride lda: the transpose of A
    packed_columns,  // tile after tile (RowTiles), each [depth][rows of the tile]
};

struct Tile {
    const float* a;     // [rows, depth]
    const float* b;     // first panel, at the tile's first column
    float* c;           // [rows, columns], row stride ldc
    const float* bias;  // [columns] or null
    i64 lda, ldc;
    i64 panel_stride;  // floats from one panel to the next
    i64 row_stride;    // and from one row to the next, if B is not packed
    i64 depth, columns;
    i64 ahead;       // floats from b to the data that is prefetched (a prefetch cannot fault),
    i64 ahead_last;  // the same for the last of the tiles that lie side by side,
    i64 ahead_step;  // and how many bytes to advance there for each step of the depth
    bool resume;     // continue from the partial sums in c
};

template <int R, int NV, bool ByColumns, bool Packed = true>
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
    for (i64 k = t.depth; k > 0; --k) {
        // Fewer rows read several panels at a time, which the processor prefetches itself.
        if constexpr (R > 2 && Packed) {
#pragma GCC unroll 8
            for (int p = 0; p < panels; ++p) __builtin_prefetch(ahead + panel[p] * i64{sizeof(float)});
            ahead += ahead_step;
        }
        if constexpr (R < NV) {
            vf x[R];
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) x[r] = set1(a[r * row]);
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) {
                const vf y = load(b + panel[v * W / panel_width] + v * W % panel_width);
#pragma GCC unroll 16
                for (int r = 0; r < R; ++r) acc[r][v] = fma(x[r], y, acc[r][v]);
            }
        } else {
            vf y[NV];
#pragma GCC unroll 8
            for (int v = 0; v < NV; ++v) y[v] = load(b + panel[v * W / panel_width] + v * W % panel_width);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const vf x = set1(a[r * row]);
#pragma GCC unroll 8
                for (int v = 0; v < NV; ++v) acc[r][v] = fma(x, y[v], acc[r][v]);
            }
        }
        a += step;
        b += row_stride;
#ifdef __clang__
        // Clang would keep other pointers instead, and shuffle all accumulators of 6 x 64 in each step.
        asm("" : "+r"(a), "+r"(b));
#endif
    }
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
};

template <int R>
constexpr TileFunctions tile_of_rows() {
    return {{multiply_tile<R, vectors(R), false>, multiply_tile<R, vectors(R), true>}};
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
            t.ahead = ahead + i * (t.ahead_step * block.depth / i64{sizeof(float)});
            tile_functions[height].by_layout[Layout != LayoutA::rows](t);
            row += height;
        }
        finish(column, t.columns);
    }
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
