#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

void linear_forward(const LinearForward&);
void linear_backward(const LinearBackward&);

namespace {

constexpr i64 block_rows = 256;  // rows whose projection is in memory at a time, where nobody else wants it

// y = sigmoid(t) relu(h) + (1 - sigmoid(t)) x; h and t are the halves of a row of the projection
void mix_rows(void* context, i64 begin, i64 end, void*) {
    const HighwayForward& args = *static_cast<HighwayForward*>(context);
    for (i64 row = begin; row < end; ++row) {
        const float* x = args.x + row * args.ldx;
        const float* h = args.projection + row * 2 * args.dim;
        const float* t = h + args.dim;
        fill_floats(args.y + row * args.dim, 0, args.dim, [&](auto at) __attribute__((always_inline)) {
            using V = decltype(at(x));
            const V gate = sigmoid(at(t));
            return fma(gate, max(constant<V>(0.0f), at(h)), (constant<V>(1.0f) - gate) * at(x));
        });
    }
}

// d = the gradient of the projection; relu passes nothing at 0, and a NaN
void differentiate_rows(void* context, i64 begin, i64 end, void*) {
    const HighwayBackward& args = *static_cast<HighwayBackward*>(context);
    for (i64 row = begin; row < end; ++row) {
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.x + row * args.ldx;
        const float* h = args.projection + row * 2 * args.dim;
        const float* t = h + args.dim;
        float* dh = args.d + row * 2 * args.dim;
        float* dt = dh + args.dim;
        for_floats(0, args.dim, [&](auto at) __attribute__((always_inline)) {
            using V = decltype(at(x));
            const V gate = sigmoid(at(t)), passed = gate * at(dy), value = at(h);
            at.put(dh, select(less(value, constant<V>(1.17549435e-38f)), constant<V>(0.0f), passed));
            at.put(dt, (max(constant<V>(0.0f), value) - at(x)) * passed * (constant<V>(1.0f) - gate));
        });
    }
}

// dx += (1 - sigmoid(t)) dy
void carry_rows(void* context, i64 begin, i64 end, void*) {
    const HighwayBackward& args = *static_cast<HighwayBackward*>(context);
    for (i64 row = begin; row < end; ++row) {
        const float* dy = args.dy + row * args.lddy;
        const float* t = args.projection + row * 2 * args.dim + args.dim;
        float* dx = args.dx + row * args.dim;
        fill_floats(dx, 0, args.dim, [&](auto at) __attribute__((always_inline)) {
            using V = decltype(at(dy));
            return fma(constant<V>(1.0f) - sigmoid(at(t)), at(dy), at(dx));
        });
    }
}

}  // namespace

void highway_forward(const HighwayForward& args) {
    HighwayForward block = args;
    const i64 rows = args.projection ? args.rows : lesser(args.rows, block_rows);
    // linear_forward leaves it alone as long as the weight is in panels
    if (!args.projection)
        block.projection = static_cast<float*>(shared_scratch(rows * 2 * args.dim * i64{sizeof(float)}));
    for (i64 row = 0; row < args.rows; row += rows) {
        block.rows = lesser(rows, args.rows - row);
        block.y = args.y + row * args.dim;
        block.x = args.x + row * args.ldx;
        LinearForward linear{};
        linear.y = block.projection;
        linear.x = block.x;
        linear.panels = args.panels;
        linear.weight = args.weight;
        linear.bias = args.bias;
        linear.m = block.rows;
        linear.n = linear.ldy = 2 * args.dim;
        linear.k = args.dim;
        linear.ldx = args.ldx;
        linear.ldw = args.ldw;
        linear_forward(linear);
        parallel_for(block.rows, row_grain(args.dim), mix_rows, &block);
    }
}

void highway_backward(const HighwayBackward& args) {
    HighwayBackward context = args;
    parallel_for(args.rows, row_grain(args.dim), differentiate_rows, &context);
    LinearBackward linear{};
    linear.dx = args.dx;
    linear.dweight = args.dweight;
    linear.dbias = args.dbias;
    linear.block_sums = args.block_sums;
    linear.dy = args.d;
    linear.x = args.x;
    linear.panels = args.panels;
    linear.weight = args.weight;
    linear.m = args.rows;
    linear.n = linear.ldy = 2 * args.dim;
    linear.k = args.dim;
    linear.ldx = args.ldx;
    linear.ldw = args.ldw;
    linear.add_to_dweight = args.add_to_dweight;
    linear.add_to_dbias = args.add_to_dbias;
    linear_backward(linear);
    if (args.dx) parallel_for(args.rows, row_grain(args.dim), carry_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
