#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 small_a = 96 * 1024 / sizeof(float);  // an A of so many floats stays cached whole
constexpr i64 work_per_item = 1 << 22;              // multiply-adds
constexpr i64 serial_below = 1 << 17;               // multiply-adds that are not worth waking a thread for

struct Plan {
    const LinearForward* args;
    i64 panels, panels_per_item, items_per_row_block;  // an item is a group of panels for a block of rows
    i64 rows_per_item;
    i64 depth, panels_at_once;  // inside an item: depth block, and panels that share it
    i64 ahead;                  // Tile::ahead
};

template <typename F>
FASTATTN_INLINE void map_tile(float* c, i64 ldc, const float* residual, i64 ldr, i64 rows, i64 columns, F f) {
    for (i64 r = 0; r < rows; ++r) {
        map_floats(c + r * ldc, c + r * ldc, columns, f);
        if (residual)
            for_vectors(columns, [&](i64 i, i64 n) {
                store_n(c + r * ldc + i, load_n(c + r * ldc + i, n) + load_n(residual + r * ldr + i, n), n);
            });
    }
}

void activate(Activation activation, float* c, i64 ldc, const float* residual, i64 ldr, i64 rows, i64 columns) {
    const auto apply = [&](auto f)
                           __attribute__((always_inline)) { map_tile(c, ldc, residual, ldr, rows, columns, f); };
    switch (activation) {
        case Activation::none: return apply([](auto x) { return x; });
        case Activation::relu: return apply([](auto x) { return max(constant<decltype(x)>(0.0f), x); });
        case Activation::gelu: return apply([](auto x) { return gelu(x); });
        case Activation::gelu_tanh: return apply([](auto x) { return gelu_tanh(x); });
        case Activation::silu: return apply([](auto x) { return silu(x); });
        case Activation::tanh: return apply([](auto x) { return tanh(x); });
    }
}

void linear_item(const Plan& plan, i64 item, float* scratch) {
    const LinearForward& args = *plan.args;
    const i64 row_begin = item / plan.items_per_row_block * plan.rows_per_item;
    const i64 row_end = lesser(args.m, row_begin + plan.rows_per_item);
    const i64 panel_begin = item % plan.items_per_row_block * plan.panels_per_item;
    const i64 panel_end = lesser(plan.panels, panel_begin + plan.panels_per_item);
    const bool finishes = args.residual || args.activation != Activation::none;

    for (i64 first = panel_begin; first < panel_end; first += plan.panels_at_once) {
        const i64 last = lesser(panel_end, first + plan.panels_at_once);
        i64 k = 0;
        do {
            const i64 depth = lesser(plan.depth, args.k - k);
            const bool complete = k + depth == args.k;
            const i64 column = first * panel_width;
            Tile t;
            if (args.panels) {
                t.b = args.panels + first * panel_width * args.k + k * panel_width;
                t.panel_stride = args.k * panel_width;
            } else {
                for (i64 p = first; p < last; ++p)
                    pack_panel(scratch + (p - first) * panel_width * depth,
                               args.weight + p * panel_width * args.ldw + k, args.ldw,
                               lesser(panel_width, args.n - p * panel_width), depth);
                t.b = scratch;
                t.panel_stride = depth * panel_width;
            }
            t.lda = args.ldx;
            t.ldc = args.ldy;
            t.depth = depth;
            t.ahead = plan.ahead;
            t.columns = lesser(args.n, last * panel_width) - column;
            t.bias = complete && args.bias ? args.bias + column : nullptr;
            t.resume = k > 0;
            for (i64 row = row_begin; row < row_end; row += row_block) {
                t.a = args.x + row * args.ldx + k;
                t.c = args.y + row * args.ldy + column;
                const i64 rows = lesser(row_block, row_end - row);
                multiply_block(t, rows, [&](i64 c, i64 columns) {
                    if (!complete || !finishes) return;
                    const float* residual = args.residual ? args.residual + row * args.ldr + column + c : nullptr;
                    activate(args.activation, t.c + c, t.ldc, residual, args.ldr, rows, columns);
                });
            }
            k += depth;
        } while (k < args.k);
    }
}

}  // namespace

void linear_forward(const LinearForward& args) {
    Plan plan;
    plan.args = &args;
    plan.panels = (args.n + panel_width - 1) / panel_width;
    // A plain weight is packed by whoever uses it, so that each panel is used by one item only.
    const i64 row_blocks = args.panels ? (args.m + row_block - 1) / row_block : 1;
    plan.rows_per_item =
        args.panels ? round_up((args.m + row_blocks - 1) / greater(1, row_blocks), common_rows) : args.m;
    const RowTiles tiles(lesser(args.m, row_block));
    const i64 step = greater(1, tiles.columns() / panel_width);
    // One tile reads each weight once: no block of the depth needs to stay in the cache.
    const i64 blocks = tiles.count == 1 && args.panels ? 1 : (args.k + depth_block - 1) / depth_block;
    plan.depth = blocks <= 1 ? greater(1, args.k) : round_up((args.k + blocks - 1) / blocks, 8);

    const i64 work = args.m * args.n * args.k;
    const bool serial = work < serial_below;
    // Few items when there is little to do: each begins with weights that nobody has prefetched. Many when there is
    // much, so that no thread waits long for the last one.
    const i64 wanted_items = serial ? 1 : greater(2 * num_threads(), lesser(64 * num_threads(), work / work_per_item));
    const i64 groups = greater(1, (wanted_items + row_blocks - 1) / greater(1, row_blocks));
    plan.panels_per_item = greater(step, round_up(plan.panels / groups, step));
    plan.items_per_row_block = (plan.panels + plan.panels_per_item - 1) / plan.panels_per_item;
    plan.panels_at_once =
        lesser(plan.panels_per_item, plan.rows_per_item * args.k <= small_a ? step : round_up(8, step));

    // What comes next in memory: for one tile the same stream, then the next depth block, or the next panels.
    plan.ahead = blocks <= 1 && tiles.count == 1 ? 2048
                 : plan.panels_at_once == step   ? plan.depth * panel_width
                                                 : step * (args.panels ? args.k : plan.depth) * panel_width;

    const i64 scratch = args.panels ? 0 : plan.panels_at_once * panel_width * plan.depth * i64{sizeof(float)};
    const i64 items = row_blocks * plan.items_per_row_block;
    parallel_for(
        items, serial ? items : 1,
        [](void* context, i64 begin, i64 end, void* memory) {
            for (i64 item = begin; item < end; ++item)
                linear_item(*static_cast<Plan*>(context), item, static_cast<float*>(memory));
        },
        &plan, scratch);
}

}  // namespace fastattn::FASTATTN_ISA
