#include "product.h"

#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 small_a = 96 * 1024 / sizeof(float);  // floats of an A that stays in the cache
constexpr i64 work_per_item = 1 << 22;              // multiply-adds
constexpr i64 pack_first_from = 256;                // rows of A from which packing all of B first pays off,
constexpr i64 pack_first_to = 1 << 23;              // unless B has more floats: the memory stays with the thread
constexpr i64 expand_from = 96;                     // rows of A that share the floats of bfloat16
constexpr i64 serial_below = 1 << 17;               // multiply-adds that are not worth waking a thread for

FASTATTN_INLINE i64 panels_of(const Product& product) { return divide_up(product.columns, panel_width); }

// How a product is split: an item is a block of rows times a group of panels.
struct Plan {
    i64 rows_per_item, row_items;
    i64 panels_per_item, panel_items;
    i64 depth, panels_at_once;  // inside an item: depth block, and panels that share it
    i64 panels_of_tile;
};

struct Finished {  // complete columns of c, and the same columns of y and residual
    float* y;
    const float* c;
    const float* residual;
    i64 ldy, ldc, ldr, rows, columns;
};

template <typename F>
FASTATTN_INLINE void map_rows(const Finished& m, F f) {
    for (i64 r = 0; r < m.rows; ++r) {
        float* y = m.y + r * m.ldy;
        map_floats(y, m.c + r * m.ldc, m.columns, f);
        if (m.residual)
            for_vectors(m.columns, [&](i64 i, i64 n) {
                store_n(y + i, load_n(y + i, n) + load_n(m.residual + r * m.ldr + i, n), n);
            });
    }
}

void activate(Activation activation, const Finished& m) {
    with_activation(activation, [&](auto f) __attribute__((always_inline)) { map_rows(m, f); });
}

// y = act(x W^T + bias) + residual of integers: c holds int32, the rows of the product begin at `row` and its columns
// at `column`. A multiplication and an addition, never fused: the same bits with every instruction set.
void dequantize(const Product& product, const Finished& m, i64 row, i64 column) {
    const Dequantization& d = product.dequantization;
    const float* const sums = reinterpret_cast<const float*>(d.sums) + column;
    const float* const column_scales = d.column_scales + column;
    const float* const bias = product.bias ? product.bias + column : nullptr;
    with_activation(product.activation, [&](auto f) __attribute__((always_inline)) {
        for (i64 r = 0; r < m.rows; ++r) {
            const float* const c = m.c + r * m.ldc;
            const float* const residual = m.residual ? m.residual + r * m.ldr : nullptr;
            const float scale = d.scales[row + r];
            const int zero = d.zeros[row + r];
            fill_floats(m.y + r * m.ldy, 0, m.columns, [&](auto at) __attribute__((always_inline)) {
                using V = decltype(at(c));
                V y = dequantized(at(c), zero, at(sums)) * (at(column_scales) * constant<V>(scale));
                if (bias) y = y + at(bias);
                y = f(y);
                return residual ? y + at(residual) : y;
            });
        }
    });
}

Operation operation_of(const Product& product) {
    switch (product.element) {
        case Element::float32: return Operation::fma;
        case Element::bfloat16: return Operation::fma_bfloat16;
        case Element::int8: return has_dot_product(dot_product) ? Operation::dot : Operation::dot_pairs;
    }
    return Operation::fma;
}

// Panels [first, last) of B, its rows [k, k + depth), into `panels`.
void fill_panels(const Product& product, float* panels, i64 first, i64 last, i64 k, i64 depth) {
    const i64 stride = depth * panel_width;
    const auto for_panels = [&](auto fill) __attribute__((always_inline)) {
        for (i64 p = first; p < last; ++p)
            fill(panels + (p - first) * stride, p * panel_width,
                 lesser(panel_width, product.columns - p * panel_width));
    };
    if (product.layout_b == LayoutB::columns)
        return for_panels([&](float* panel, i64 column, i64 columns) {
            pack_panel(panel, product.b + column * product.ldb + k, product.ldb, columns, depth);
        });
    if (product.layout_b == LayoutB::bfloat16_panels)
        return for_panels([&](float* panel, i64 column, i64) {
            const float* lines = product.b + column * divide_up(product.depth, 2) + k / 2 * panel_width;
            for (i64 i = 0; i < depth; ++i, panel += panel_width) {
                const float* line = lines + i / 2 * panel_width;
#pragma GCC unroll 4
                for (int v = 0; v < panel_width; v += W)
                    store(panel + v, i % 2 ? high_bfloat16(load(line + v)) : low_bfloat16(load(line + v)));
            }
        });
    constexpr i64 at_once = 16;  // rows of B that are read side by side, each from end to end
    for (i64 i = 0; i < depth; i += at_once) {
        const i64 count = lesser(at_once, depth - i);
        for_panels([&](float* panel, i64 column, i64 columns) {
            panel += i * panel_width;
            if (product.layout_b == LayoutB::rows)
                copy_panel(panel, product.b + (k + i) * product.ldb + column, product.ldb, columns, count);
            else  // depth blocks begin at multiples of the panel width
                pack_panel(panel, product.b + (k + i) * product.columns + column * panel_width, panel_width, columns,
                           count);
        });
    }
}

template <int R>
FASTATTN_INLINE void copy_columns(float* to, const float* from, i64 ld, i64 depth) {
    for (i64 k = 0; k < depth; ++k) __builtin_memcpy(to + k * R, from + k * ld, R * sizeof(float));
}

// `rows` rows of A from its transpose at `from`, as LayoutA::packed_columns. A few rows of the transpose at a time, for
// all tiles: each row is read from end to end while the next ones are prefetched.
void pack_columns(float* to, const float* from, i64 ld, i64 rows, i64 depth) {
    constexpr i64 at_once = 16;
    const RowTiles tiles(rows);
    for (i64 k = 0; k < depth; k += at_once) {
        const i64 count = lesser(at_once, depth - k);
        for (i64 j = k + count; j < lesser(depth, k + 2 * at_once); ++j)
            for (i64 i = 0; i < rows; i += panel_width) __builtin_prefetch(from + j * ld + i);
        i64 row = 0;
        for (i64 i = 0; i < tiles.count; ++i) {
            const i64 height = tiles.rows(i);
            float* tile = to + row * depth + k * height;
            const float* columns = from + k * ld + row;
            switch (height) {
                case 4: copy_columns<4>(tile, columns, ld, count); break;
                case 5: copy_columns<5>(tile, columns, ld, count); break;
                case 6: copy_columns<6>(tile, columns, ld, count); break;
                default:
                    for (i64 j = 0; j < count; ++j)
                        for (i64 r = 0; r < height; ++r) tile[j * height + r] = columns[j * ld + r];
            }
            row += height;
        }
    }
}

// The panels [first, last) at B's rows [k, k + depth), times the item's rows.
template <LayoutA Layout>
FASTATTN_INLINE void multiply_panels(const Product& product, const Plan& plan, i64 row_begin, i64 row_end, i64 first,
                                     i64 last, i64 k, float* scratch) {
    const i64 depth = lesser(plan.depth, product.depth - k), column = first * panel_width;
    const bool complete = k + depth == product.depth;
    const bool integers = product.element == Element::int8;
    const bool finishes =
        product.residual || product.activation != Activation::none || product.y != product.c || integers;
    const i64 of_line = product.element == Element::bfloat16 ? 2 : 1;
    float* packed_a = scratch;
    Tile t;
    t.operation = operation_of(product);
    if (product.layout_b == LayoutB::panels) {
        t.panel_stride = divide_up(product.depth, of_line) * panel_width;
        t.b = product.b + first * t.panel_stride + k / of_line * panel_width;
    } else {
        fill_panels(product, scratch, first, last, k, depth);
        t.b = scratch;
        t.panel_stride = depth * panel_width;
        packed_a += plan.panels_at_once * panel_width * plan.depth;
    }
    t.lda = product.lda;
    t.ldc = product.ldc;
    t.depth = depth;
    // The next data in memory: the tile beside this one, and after the last one the first tile of the next depth block
    // or of the next panels. A tile that has all rows and the whole depth reads each weight once, in a single stream.
    const i64 width = plan.panels_of_tile * t.panel_stride;
    const i64 back = (divide_up(last - first, plan.panels_of_tile) - 1) * width;
    t.ahead = width;
    t.ahead_last =
        (complete ? (last - first) * t.panel_stride - k / of_line * panel_width : depth / of_line * panel_width) - back;
    if (plan.rows_per_item <= max_rows && depth == product.depth) t.ahead = t.ahead_last = 2048;
    t.columns = lesser(product.columns, last * panel_width) - column;
    t.bias = complete && product.bias && !integers ? product.bias + column : nullptr;
    t.resume = k > 0 || product.accumulate;
    for (i64 row = row_begin; row < row_end; row += row_block) {
        const i64 rows = lesser(row_block, row_end - row);
        t.c = product.c + row * product.ldc + column;
        if (Layout == LayoutA::packed_columns) {
            pack_columns(packed_a, product.a + k * product.lda + row, product.lda, rows, depth);
            t.a = packed_a;
        } else {
            t.a = product.a + row * product.lda + k;
        }
        multiply_block<Layout>(t, rows, [&](i64 c, i64 columns) {
            if (!complete || !finishes) return;
            const i64 at = column + c;
            const float* residual = product.residual ? product.residual + row * product.ldr + at : nullptr;
            const Finished m{product.y + row * product.ldy + at,
                             t.c + c,
                             residual,
                             product.ldy,
                             product.ldc,
                             product.ldr,
                             rows,
                             columns};
            if (integers)
                dequantize(product, m, row, at);
            else
                activate(product.activation, m);
        });
    }
}

template <LayoutA Layout>
FASTATTN_INLINE void multiply_item(const Product& product, const Plan& plan, i64 item, float* scratch) {
    const i64 row_begin = item / plan.panel_items * plan.rows_per_item;
    const i64 row_end = lesser(product.rows, row_begin + plan.rows_per_item);
    const i64 panel_begin = item % plan.panel_items * plan.panels_per_item;
    const i64 panel_end = lesser(panels_of(product), panel_begin + plan.panels_per_item);
    for (i64 first = panel_begin; first < panel_end; first += plan.panels_at_once) {
        const i64 last = lesser(panel_end, first + plan.panels_at_once);
        i64 k = 0;
        do {  // once even for depth 0: y is the epilogue of zeros
            multiply_panels<Layout>(product, plan, row_begin, row_end, first, last, k, scratch);
            k += plan.depth;
        } while (k < product.depth);
    }
}

// All of B in panels, in memory for this call.
const float* pack_b(const Product& product) {
    float* const packed = shared_scratch(panels_of(product) * panel_width * product.depth);
    parallel_for(panels_of(product), 4, [&](i64 begin, i64 end, float*) {
        fill_panels(product, packed + begin * panel_width * product.depth, begin, end, 0, product.depth);
    });
    return packed;
}

// Rows per item if every item packs its part of A and B, chosen so that little is packed twice. Packing A costs about
// twice as much, since it is copied in smaller pieces.
i64 rows_of_item(const Product& product, i64 wanted_items) {
    i64 best = 0, least = 0;
    for (i64 groups = 1; groups <= wanted_items; ++groups) {
        const i64 rows = round_up(greater(1, divide_up(product.rows, groups)), common_rows);
        const i64 row_items = divide_up(product.rows, rows);
        const i64 column_items = divide_up(wanted_items, greater(1, row_items));
        const i64 cost = 2 * product.rows * column_items + product.columns * row_items;
        if (best == 0 || cost < least) {
            best = rows;
            least = cost;
        }
    }
    return best;
}

// Each item packs what it uses: B is packed once if an item has all rows, A if it has all columns.
FASTATTN_INLINE void cut_rows(const Product& product, Plan& plan, i64 wanted_items) {
    if (product.layout_b == LayoutB::panels) {
        plan.row_items = divide_up(product.rows, row_block);
        plan.rows_per_item = round_up(divide_up(product.rows, greater(1, plan.row_items)), common_rows);
    } else if (product.a_by_columns) {
        plan.rows_per_item = rows_of_item(product, wanted_items);
        plan.row_items = divide_up(product.rows, plan.rows_per_item);
    } else {
        plan.rows_per_item = product.rows;
        plan.row_items = 1;
    }
}

// How many of the `tiles` that lie side by side an item has, if there are to be about `groups` items in each of
// `row_items` rows of items. Of the larger half of the numbers that give as many, the one that shares them out most
// evenly among the threads: six tiles are three for each of two threads, and not four and two.
i64 tiles_of_item(i64 tiles, i64 groups, i64 row_items) {
    const i64 most = greater(1, tiles / groups), threads = num_threads();
    i64 best = most, least = 0;
    for (i64 size = most; 2 * size > most; --size) {
        const i64 longest = divide_up(row_items * divide_up(tiles, size), threads) * size;  // of the threads' shares
        if (least == 0 || longest < least) {
            best = size;
            least = longest;
        }
    }
    return best;
}

Plan plan_of(const Product& product, bool serial) {
    const bool in_panels = product.layout_b == LayoutB::panels;
    const RowTiles tiles(lesser(product.rows, row_block));
    Plan plan;
    const i64 panels_of_tile = plan.panels_of_tile = greater(1, tiles.columns() / panel_width);
    // A small product has few items, since each starts with weights that were not prefetched. A large one has many, so
    // that no thread waits long for the last item.
    const i64 work = product.rows * product.columns * product.depth;
    const i64 most_items = (product.a_by_columns ? 2 : 64) * num_threads();
    const i64 wanted_items = serial ? 1 : greater(2 * num_threads(), lesser(most_items, work / work_per_item));
    cut_rows(product, plan, wanted_items);

    // One tile reads each weight once: no block of the depth needs to stay in the cache.
    const i64 longest = product.a_by_columns ? depth_block / 2 : depth_block;
    const i64 blocks = tiles.count == 1 && in_panels ? 1 : divide_up(product.depth, longest);
    plan.depth = blocks <= 1 ? greater(1, product.depth) : round_up(divide_up(product.depth, blocks), panel_width);

    const i64 groups = greater(1, divide_up(wanted_items, greater(1, plan.row_items)));
    plan.panels_per_item =
        panels_of_tile * tiles_of_item(divide_up(panels_of(product), panels_of_tile), groups, plan.row_items);
    plan.panel_items = divide_up(panels_of(product), plan.panels_per_item);
    const bool a_stays = plan.rows_per_item * product.depth <= small_a;
    const i64 at_once = product.a_by_columns ? 48 : a_stays ? panels_of_tile : 8;
    plan.panels_at_once = lesser(plan.panels_per_item, round_up(at_once, panels_of_tile));
    return plan;
}

}  // namespace

void multiply(Product product) {
    if (product.element == Element::bfloat16 && product.rows >= expand_from) {
        product.layout_b = LayoutB::bfloat16_panels;
        product.element = Element::float32;
    }
    if (product.layout_b != LayoutB::panels && !product.a_by_columns && product.rows >= pack_first_from &&
        product.columns * product.depth <= pack_first_to) {
        product.b = pack_b(product);
        product.layout_b = LayoutB::panels;
    }
    const bool serial = product.rows * product.columns * product.depth < serial_below;
    const Plan plan = plan_of(product, serial);
    const i64 floats_of_a = product.a_by_columns ? lesser(row_block, product.rows) * plan.depth : 0;
    const i64 floats_of_b = product.layout_b == LayoutB::panels ? 0 : plan.panels_at_once * panel_width * plan.depth;
    const i64 items = plan.row_items * plan.panel_items;
    parallel_for(
        items, serial ? items : 1,
        [&](i64 begin, i64 end, float* scratch) {
            for (i64 item = begin; item < end; ++item) {
                if (product.a_by_columns)
                    multiply_item<LayoutA::packed_columns>(product, plan, item, scratch);
                else
                    multiply_item<LayoutA::rows>(product, plan, item, scratch);
            }
        },
        floats_of_a + floats_of_b);
}

void reserve_for_products_by_columns() {
    constexpr i64 most_panels_at_once = 64;
    reserve_scratch((row_block + most_panels_at_once * panel_width) * depth_block / 2);
}

}  // namespace fastattn::FASTATTN_ISA
