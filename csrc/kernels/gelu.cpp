#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
void gelu_forward(const GeluForward& args) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_runs(args, args.ldx == args.dim, [&](i64 row, i64 count) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        if (args.tanh)
            fill_row(streamed, y, count, [&](auto at) { return gelu_tanh(at(x)); });
        else
            fill_row(streamed, y, count, [&](auto at) { return gelu(at(x)); });
    });
}

void gelu_backward(const GeluBackward& args) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_runs(args, args.ldx == args.dim && args.lddy == args.dim, [&](i64 row, i64 count) {
        float* dx = args.dx + row * args.dim;
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.x + row * args.ldx;
        if (args.tanh)
            fill_row(streamed, dx, count, [&](auto at) { return at(dy) * gelu_tanh_gradient(at(x)); });
        else
            fill_row(streamed, dx, count, [&](auto at) { return at(dy) * gelu_gradient(at(x)); });
    });
}

}  // namespace fastattn::FASTATTN_ISA
