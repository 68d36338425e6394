#include "../parallel.h"
#include "random.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Forward and backward are one function: the generator says again what was kept.
void dropout_rows(void* context, i64 begin, i64 end, void*) {
    const DropoutForward& args = *static_cast<DropoutForward*>(context);
    const bool streamed = args.rows * args.dim >= streamed_from;
    for (i64 row = begin; row < end; ++row) {
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
    }
}

}  // namespace

void dropout_forward(const DropoutForward& args) {
    DropoutForward context = args;
    parallel_for(args.rows, row_grain(args.dim), dropout_rows, &context);
}

void dropout_backward(const DropoutBackward& args) {
    dropout_forward({args.dx, args.dy, nullptr, args.rows, args.dim, args.lddy, 0, args.dropout});
}

}  // namespace fastattn::FASTATTN_ISA
