#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 small_a = 96 * 1024 / sizeof(float);  // an A of so many floats stays cached whole
constexpr i64 work_per_item = 1 << 22;              // multiply-adds
constexpr i64 pack_first_from = 256;                // rows of A that repay packing all of B before the rest,
constexpr i64 pack_first_to = 1 << 23;              // unless B has more floats: the memory stays with the thread
constexpr i64 serial_below = 1 << 17;               // multiply-adds that are not worth waking a thread for

// How B lies in memory.
enum class LayoutB {
    panels,             // in panels
    columns,            // [columns][depth], row stride ldb: a weight, for x W^T
    rows,               // [depth][columns], row stride ldb
    transposed_panels,  // in panels of its transpose, [depth / 16][columns][16]
};

// y = act(A B + bias) + residual, with A [rows, depth], B [depth, columns]
struct Product {
    float* y;               // row stride ldy; may be c
    float* c;               // A B + bias, row stride ldc
    const float* a;         // [rows][depth], or [depth][rows] when a_by_columns, row stride lda
    const float* b;         // see LayoutB
    const float* bias;      // [columns] or null
    const float* residual;  // row stride ldr, or null
    i64 rows, columns, depth;
    i64 ldy, ldc, lda, ldb, ldr;
    LayoutB layout_b;
    bool a_by_columns;
    bool accumulate;  // begin with what c holds
    Activation activation;
};

struct Plan {
    Product product;
    i64 panels, panels_per_item, items_per_row_block;  // an item is a group of panels for a block of rows
    i64 rows_per_item;
    i64 depth, panels_at_once;  // inside an item: depth block, and panels that share it
    i64 ahead;                  // Tile::ahead
};

struct Matrix {  // what an epilogue works on: some columns of c, y and residual
    float* y;
    const float* c;
    const float* residual;
    i64 ldy, ldc, ldr, rows, columns;
};

template <typename F>
FASTATTN_INLINE void map_matrix(const Matrix& m, F f) {
    for (i64 r = 0; r < m.rows; ++r) {
        float* y = m.y + r * m.ldy;
        map_floats(y, m.c + r * m.ldc, m.columns, f);
        if (m.residual)
            for_vectors(m.columns, [&](i64 i, i64 n) {
                store_n(y + i, load_n(y + i, n) + load_n(m.residual + r * m.ldr + i, n), n);
            });
    }
}

void activate(Activation activation, const Matrix& m) {
    switch (activation) {
        case Activation::none: return map_matrix(m, [](auto x) { return x; });
        case Activation::relu: return map_matrix(m, [](auto x) { return max(constant<decltype(x)>(0.0f), x); });
        case Activation::gelu: return map_matrix(m, [](auto x) { return gelu(x); });
        case Activation::gelu_tanh: return map_matrix(m, [](auto x) { return gelu_tanh(x); });
        case Activation::silu: return map_matrix(m, [](auto x) { return silu(x); });
        case Activation::tanh: return map_matrix(m, [](auto x) { return tanh(x); });
    }
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
    constexpr i64 at_once = 16;  // rows of B, so that they are read from end to end together
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
// all tiles: so each is read from end to end, and the next few are fetched meanwhile.
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

template <LayoutA Layout>
FASTATTN_INLINE void multiply_item(const Plan& plan, i64 item, float* scratch) {
    const Product& product = plan.product;
    const i64 row_begin = item / plan.items_per_row_block * plan.rows_per_item;
    const i64 row_end = lesser(product.rows, row_begin + plan.rows_per_item);
    const i64 panel_begin = item % plan.items_per_row_block * plan.panels_per_item;
    const i64 panel_end = lesser(plan.panels, panel_begin + plan.panels_per_item);
    const bool finishes = product.residual || product.activation != Activation::none || product.y != product.c;
    const bool in_panels = product.layout_b == LayoutB::panels;
    float* const packed_a = scratch + (in_panels ? 0 : plan.panels_at_once * panel_width * plan.depth);

    for (i64 first = panel_begin; first < panel_end; first += plan.panels_at_once) {
        const i64 last = lesser(panel_end, first + plan.panels_at_once);
        i64 k = 0;
        do {
            const i64 depth = lesser(plan.depth, product.depth - k);
            const bool complete = k + depth == product.depth;
            const i64 column = first * panel_width;
            Tile t;
            if (in_panels) {
                t.b = product.b + first * panel_width * product.depth + k * panel_width;
                t.panel_stride = product.depth * panel_width;
            } else {
                fill_panels(product, scratch, first, last, k, depth);
                t.b = scratch;
                t.panel_stride = depth * panel_width;
            }
            t.lda = product.lda;
            t.ldc = product.ldc;
            t.depth = depth;
            t.ahead = plan.ahead;
            t.columns = lesser(product.columns, last * panel_width) - column;
            t.bias = complete && product.bias ? product.bias + column : nullptr;
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
                    activate(product.activation, {product.y + row * product.ldy + at, t.c + c, residual, product.ldy,
                                                  product.ldc, product.ldr, rows, columns});
                });
            }
            k += depth;
        } while (k < product.depth);
    }
}

// All of B in panels, in memory for this call.
const float* pack_b(const Product& product) {
    struct Context {
        const Product* product;
        float* panels;
    };
    const i64 panels = (product.columns + panel_width - 1) / panel_width;
    const i64 floats = panels * panel_width * product.depth;
    Context context{&product, static_cast<float*>(shared_scratch(floats * i64{sizeof(float)}))};
    parallel_for(
        panels, 4,
        [](void* context, i64 begin, i64 end, void*) {
            const auto& [product, panels] = *static_cast<Context*>(context);
            fill_panels(*product, panels + begin * panel_width * product->depth, begin, end, 0, product->depth);
        },
        &context);
    return context.panels;
}

// Rows of an item when all items pack their part of A and of B: what is packed again by others is to be little. A costs
// about twice as much, being copied in smaller pieces.
i64 rows_of_item(const Product& product, i64 wanted_items) {
    i64 best = 0, least = 0;
    for (i64 groups = 1; groups <= wanted_items; ++groups) {
        const i64 rows = round_up(greater(1, (product.rows + groups - 1) / groups), common_rows);
        const i64 row_items = (product.rows + rows - 1) / rows;
        const i64 column_items = (wanted_items + row_items - 1) / greater(1, row_items);
        const i64 cost = 2 * product.rows * column_items + product.columns * row_items;
        if (best == 0 || cost < least) {
            best = rows;
            least = cost;
        }
    }
    return best;
}

void multiply(Product product) {
    if (product.layout_b != LayoutB::panels && !product.a_by_columns && product.rows >= pack_first_from &&
        product.columns * product.depth <= pack_first_to) {
        product.b = pack_b(product);
        product.layout_b = LayoutB::panels;
    }
    Plan plan;
    plan.product = product;
    plan.panels = (product.columns + panel_width - 1) / panel_width;
    const bool in_panels = product.layout_b == LayoutB::panels;
    const i64 row_blocks = (product.rows + row_block - 1) / row_block;
    const RowTiles tiles(lesser(product.rows, row_block));
    const i64 step = greater(1, tiles.columns() / panel_width);
    const i64 work = product.rows * product.columns * product.depth;
    const bool serial = work < serial_below;
    // Few items when there is little to do: each begins with weights that nobody has prefetched. Many when there is
    // much, so that no thread waits long for the last one.
    const i64 most_items = (product.a_by_columns ? 2 : 64) * num_threads();
    const i64 wanted_items = serial ? 1 : greater(2 * num_threads(), lesser(most_items, work / work_per_item));

    // What has to be packed is packed by whoever uses it: B once if an item has all rows, A once if it has all columns.
    i64 row_items = 1;
    if (in_panels) {
        row_items = row_blocks;
        plan.rows_per_item = round_up((product.rows + row_blocks - 1) / greater(1, row_blocks), common_rows);
    } else if (product.a_by_columns) {
        plan.rows_per_item = rows_of_item(product, wanted_items);
        row_items = (product.rows + plan.rows_per_item - 1) / plan.rows_per_item;
    } else {
        plan.rows_per_item = product.rows;
    }

    // One tile reads each weight once: no block of the depth needs to stay in the cache.
    const i64 block = product.a_by_columns ? depth_block / 2 : depth_block;
    const i64 blocks = tiles.count == 1 && in_panels ? 1 : (product.depth + block - 1) / block;
    plan.depth = blocks <= 1 ? greater(1, product.depth) : round_up((product.depth + blocks - 1) / blocks, panel_width);

    const i64 groups = greater(1, (wanted_items + row_items - 1) / greater(1, row_items));
    plan.panels_per_item = greater(step, round_up(plan.panels / groups, step));
    plan.items_per_row_block = (plan.panels + plan.panels_per_item - 1) / plan.panels_per_item;
    const i64 panels_at_once = product.a_by_columns ? 48 : plan.rows_per_item * product.depth <= small_a ? step : 8;
    plan.panels_at_once = lesser(plan.panels_per_item, round_up(panels_at_once, step));

    // What comes next in memory: for one tile the same stream, then the next depth block, or the next panels.
    plan.ahead = blocks <= 1 && tiles.count == 1 ? 2048
                 : plan.panels_at_once == step   ? plan.depth * panel_width
                                                 : step * (in_panels ? product.depth : plan.depth) * panel_width;

    i64 scratch = in_panels ? 0 : plan.panels_at_once * panel_width * plan.depth;
    if (product.a_by_columns) scratch += lesser(row_block, product.rows) * plan.depth;
    const i64 items = row_items * plan.items_per_row_block;
    parallel_for(
        items, serial ? items : 1,
        [](void* context, i64 begin, i64 end, void* memory) {
            const Plan& plan = *static_cast<Plan*>(context);
            for (i64 item = begin; item < end; ++item) {
                if (plan.product.a_by_columns)
                    multiply_item<LayoutA::packed_columns>(plan, item, static_cast<float*>(memory));
                else
                    multiply_item<LayoutA::rows>(plan, item, static_cast<float*>(memory));
            }
        },
        &plan, scratch * i64{sizeof(float)});
}

// Rows [begin, end), one block of them: d = dy * act'(pre_activation), and the sum of d.
template <typename F>
FASTATTN_INLINE void differentiate_rows(const LinearBackward& args, i64 begin, i64 end, F f) {
    float* sums = args.block_sums ? args.block_sums + begin / sum_block * args.n : nullptr;
    for (i64 row = begin; row < end; ++row) {
        const float* d = args.dy + row * args.ldy;
        if (args.d) {
            const float* pre = args.pre_activation + row * args.ldp;
            float* to = args.d + row * args.n;
            i64 i = 0;
            for (; i + 2 * W <= args.n; i += 2 * W) store2(to + i, load2(d + i) * f(load2(pre + i)));
            for_vectors(args.n - i, [&](i64 j, i64 n) {
                store_n(to + i + j, load_n(d + i + j, n) * f(load_n(pre + i + j, n)), n);
            });
            d = to;
        }
        if (!sums) continue;
        for_vectors(args.n, [&](i64 i, i64 n) {
            const vf value = load_n(d + i, n);
            store_n(sums + i, row == begin ? value : load_n(sums + i, n) + value, n);
        });
    }
}

void differentiate(void* context, i64 begin, i64 end, void*) {
    const LinearBackward& args = *static_cast<LinearBackward*>(context);
    const auto apply = [&](auto f) __attribute__((always_inline)) { differentiate_rows(args, begin, end, f); };
    switch (args.activation) {
        case Activation::none: return apply([](auto x) { return x; });
        case Activation::relu:
            return apply([](auto x) {
                using V = decltype(x);
                // 1 for NaN, as in PyTorch: it is not less than the least normal number
                return select(less(x, constant<V>(1.17549435e-38f)), constant<V>(0.0f), constant<V>(1.0f));
            });
        case Activation::gelu: return apply([](auto x) { return gelu_gradient(x); });
        case Activation::gelu_tanh: return apply([](auto x) { return gelu_tanh_gradient(x); });
        case Activation::silu: return apply([](auto x) { return silu_gradient(x); });
        case Activation::tanh: return apply([](auto x) { return tanh_gradient(x); });
    }
}

}  // namespace

void linear_forward(const LinearForward& args) {
    Product p{};
    p.y = args.y;
    p.ldy = args.ldy;
    p.c = args.pre_activation ? args.pre_activation : args.y;
    p.ldc = args.pre_activation ? args.n : args.ldy;
    p.a = args.x;
    p.lda = args.ldx;
    p.b = args.panels ? args.panels : args.weight;
    p.ldb = args.ldw;
    p.layout_b = args.panels ? LayoutB::panels : LayoutB::columns;
    p.bias = args.bias;
    p.residual = args.residual;
    p.ldr = args.ldr;
    p.rows = args.m;
    p.columns = args.n;
    p.depth = args.k;
    p.activation = args.activation;
    multiply(p);
}

void linear_backward(const LinearBackward& args) {
    if (args.d || args.dbias) {
        LinearBackward context = args;
        parallel_for(args.m, sum_block, differentiate, &context);
    }
    if (args.dbias) add_block_sums(args.dbias, args.block_sums, args.n, sum_blocks(args.m), args.n, args.add_to_dbias);
    const float* d = args.d ? args.d : args.dy;
    const i64 ldd = args.d ? args.n : args.ldy;
    if (args.dx) {
        Product p{};
        p.y = p.c = args.dx;
        p.ldy = p.ldc = args.k;
        p.a = d;
        p.lda = ldd;
        p.b = args.panels ? args.panels : args.weight;
        p.ldb = args.ldw;
        p.layout_b = args.panels ? LayoutB::transposed_panels : LayoutB::rows;
        p.rows = args.m;
        p.columns = args.k;
        p.depth = args.n;
        multiply(p);
    }
    if (args.dweight) {
        Product p{};
        p.y = p.c = args.dweight;
        p.ldy = p.ldc = args.k;
        p.a = d;
        p.lda = ldd;
        p.a_by_columns = true;
        p.b = args.x;
        p.ldb = args.ldx;
        p.layout_b = LayoutB::rows;
        p.rows = args.n;
        p.columns = args.k;
        p.depth = args.m;
        p.accumulate = args.add_to_dweight;
        multiply(p);
    }
}

}  // namespace fastattn::FASTATTN_ISA
