#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

void activation_forward(const ActivationForward& args) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    with_activation(args.activation, [&](auto f) __attribute__((always_inline)) {
        for_runs(args, args.ldx == args.dim, [&](i64 row, i64 count) {
            const float* x = args.x + row * args.ldx;
            fill_row(streamed, args.y + row * args.dim, count, [&](auto at) { return f(at(x)); });
        });
    });
}

void activation_backward(const ActivationBackward& args) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    with_gradient(args.activation, [&](auto f) __attribute__((always_inline)) {
        for_runs(args, args.lds == args.dim && args.lddy == args.dim, [&](i64 row, i64 count) {
            const float* dy = args.dy + row * args.lddy;
            const float* x = args.saved + row * args.lds;
            fill_row(streamed, args.dx + row * args.dim, count, [&](auto at) { return f(at(dy), at(x)); });
        });
    });
}

}  // namespace fastattn::FASTATTN_ISA
