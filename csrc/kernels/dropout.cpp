#include "random.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

// Forward and backward are one function: the generator draws the same elements again.
void dropout_forward(const DropoutForward& args) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        const DropoutRow dropout = dropout_row(args.dropout, row);
        if (args.residual) {
            const float* residual = args.residual + row * args.ldr;
            const bool drops = args.dropout.p > 0;
            fill_row(streamed, y, args.dim,
                     [&](auto at) { return (drops ? drop(dropout, at(x), at.i) : at(x)) + at(residual); });
        } else if (args.dropout.p > 0)
            fill_row(streamed, y, args.dim, [&](auto at) { return drop(dropout, at(x), at.i); });
        else
            fill_row(streamed, y, args.dim, [&](auto at) { return at(x); });
    });
}

void dropout_backward(const DropoutBackward& args) {
    dropout_forward({{args.dx, args.dy, args.rows, args.dim, args.lddy}, nullptr, 0, args.dropout});
}

}  // namespace fastattn::FASTATTN_ISA
