#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

void gated_activation_forward(const GatedActivationForward& args) {
    const bool streamed = args.ldy == args.dim && args.rows * args.dim >= streamed_from;
    with_activation(args.activation, [&](auto f) __attribute__((always_inline)) {
        for_rows(args.rows, 2 * args.dim, [&](i64 row) {
            const float* a = args.x + row * args.ldx;
            const float* b = a + args.dim;
            fill_row(streamed, args.y + row * args.ldy, args.dim, [&](auto at) { return f(at(a)) * at(b); });
        });
    });
}

void gated_activation_backward(const GatedActivationBackward& args) {
    const bool streamed = 2 * args.rows * args.dim >= streamed_from;
    with_gradient(args.activation, [&](auto f) __attribute__((always_inline)) {
        for_rows(args.rows, 3 * args.dim, [&](i64 row) {
            const float* dy = args.dy + row * args.lddy;
            const float* a = args.x + row * args.ldx;
            const float* b = a + args.dim;
            float* da = args.dx + row * 2 * args.dim;
            fill_row(streamed, da, args.dim, [&](auto at) { return f(at(dy) * at(b), at(a)); });
        });
    });
    with_activation(args.activation, [&](auto f) __attribute__((always_inline)) {
        for_rows(args.rows, 3 * args.dim, [&](i64 row) {
            const float* dy = args.dy + row * args.lddy;
            const float* a = args.x + row * args.ldx;
            float* db = args.dx + (2 * row + 1) * args.dim;
            fill_row(streamed, db, args.dim, [&](auto at) { return at(dy) * f(at(a)); });
        });
    });
}

}  // namespace fastattn::FASTATTN_ISA
