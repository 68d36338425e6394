#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// f(row, floats) for every row, or once for all of them where they lie without gaps.
template <typename Args, typename F>
FASTATTN_INLINE void for_rows(const Args& args, bool gapless, i64 begin, i64 end, F f) {
    if (gapless) return f(begin, (end - begin) * args.dim);
    for (i64 row = begin; row < end; ++row) f(row, args.dim);
}

void gelu_rows(void* context, i64 begin, i64 end, void*) {
    const GeluForward& args = *static_cast<GeluForward*>(context);
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_rows(args, args.ldx == args.dim, begin, end, [&](i64 row, i64 count) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        if (args.tanh)
            fill_row(streamed, y, count, [&](auto at) { return gelu_tanh(at(x)); });
        else
            fill_row(streamed, y, count, [&](auto at) { return gelu(at(x)); });
    });
}

void gelu_backward_rows(void* context, i64 begin, i64 end, void*) {
    const GeluBackward& args = *static_cast<GeluBackward*>(context);
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_rows(args, args.ldx == args.dim && args.lddy == args.dim, begin, end, [&](i64 row, i64 count) {
        float* dx = args.dx + row * args.dim;
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.x + row * args.ldx;
        if (args.tanh)
            fill_row(streamed, dx, count, [&](auto at) { return at(dy) * gelu_tanh_gradient(at(x)); });
        else
            fill_row(streamed, dx, count, [&](auto at) { return at(dy) * gelu_gradient(at(x)); });
    });
}

}  // namespace

void gelu_forward(const GeluForward& args) {
    GeluForward context = args;
    parallel_for(args.rows, row_grain(args.dim), gelu_rows, &context);
}

void gelu_backward(const GeluBackward& args) {
    GeluBackward context = args;
    parallel_for(args.rows, row_grain(args.dim), gelu_backward_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
