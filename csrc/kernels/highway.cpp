#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

void linear_forward(const LinearForward&);
void linear_backward(const LinearBackward&);

namespace {

constexpr i64 block_rows = 256;  // rows of the projection in memory at a time, if the caller does not ask for it

// y = sigmoid(t) relu(h) + (1 - sigmoid(t)) x; h and t are the halves of a row of the projection
FASTATTN_INLINE void mix_row(float* y, const float* x, const float* h, i64 dim) {
    const float* t = h + dim;
    fill_floats(y, 0, dim, [&](auto at) __attribute__((always_inline)) {
        using V = decltype(at(x));
        const V gate = sigmoid(at(t));
        return fma(gate, max(constant<V>(0.0f), at(h)), (constant<V>(1.0f) - gate) * at(x));
    });
}

// The gradient of the projection; relu passes nothing at 0, and passes a NaN
FASTATTN_INLINE void differentiate_row(float* dh, const float* dy, const float* x, const float* h, i64 dim) {
    const float* t = h + dim;
    float* dt = dh + dim;
    for_floats(0, dim, [&](auto at) __attribute__((always_inline)) {
        using V = decltype(at(x));
        const V gate = sigmoid(at(t)), passed = gate * at(dy), value = at(h);
        at.put(dh, select(less(value, constant<V>(1.17549435e-38f)), constant<V>(0.0f), passed));
        at.put(dt, (max(constant<V>(0.0f), value) - at(x)) * passed * (constant<V>(1.0f) - gate));
    });
}

// dx += (1 - sigmoid(t)) dy
FASTATTN_INLINE void carry_row(float* dx, const float* dy, const float* t, i64 dim) {
    fill_floats(dx, 0, dim, [&](auto at) __attribute__((always_inline)) {
        using V = decltype(at(dy));
        return fma(constant<V>(1.0f) - sigmoid(at(t)), at(dy), at(dx));
    });
}

}  // namespace

void highway_forward(const HighwayForward& args) {
    LinearForward block = args.linear;
    const i64 rows = block.m, dim = block.k, width = block.n;
    // If the caller does not ask for the projection: some rows at a time. linear_forward needs no scratch for panels.
    const i64 at_once = block.y ? rows : lesser(rows, block_rows);
    if (!block.y) block.y = shared_scratch(at_once * width);
    for (i64 first = 0; first < rows; first += at_once) {
        block.m = lesser(at_once, rows - first);
        block.x = args.linear.x + first * block.ldx;
        linear_forward(block);
        for_rows(block.m, dim, [&](i64 row) {
            mix_row(args.y + (first + row) * dim, block.x + row * block.ldx, block.y + row * width, dim);
        });
    }
}

void highway_backward(const HighwayBackward& args) {
    const LinearBackward& linear = args.linear;
    const i64 dim = linear.k, width = linear.n;
    for_rows(linear.m, dim, [&](i64 row) {
        differentiate_row(args.d + row * width, args.dy + row * args.lddy, linear.x + row * linear.ldx,
                          args.projection + row * width, dim);
    });
    linear_backward(linear);
    if (!linear.dx) return;
    for_rows(linear.m, dim, [&](i64 row) {
        carry_row(linear.dx + row * dim, args.dy + row * args.lddy, args.projection + row * width + dim, dim);
    });
}

}  // namespace fastattn::FASTATTN_ISA
