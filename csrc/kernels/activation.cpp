#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// y = f(x), or dx = dy g(x), for the rows [begin, end); all of them at once where they lie without gaps.
template <typename F>
FASTATTN_INLINE void map_rows(const ActivationForward& args, i64 begin, i64 end, F f) {
    const bool gapless = args.ldx == args.dim, streamed = args.rows * args.dim >= streamed_from;
    for (i64 row = begin; row < end; row += gapless ? end - begin : 1) {
        const float* x = args.x + row * args.ldx;
        const i64 count = gapless ? (end - begin) * args.dim : args.dim;
        fill_row(streamed, args.y + row * args.dim, count, [&](auto at) { return f(at(x)); });
    }
}

template <typename G>
FASTATTN_INLINE void map_rows(const ActivationBackward& args, i64 begin, i64 end, G g) {
    const bool gapless = args.ldx == args.dim && args.lddy == args.dim;
    const bool streamed = args.rows * args.dim >= streamed_from;
    for (i64 row = begin; row < end; row += gapless ? end - begin : 1) {
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.x + row * args.ldx;
        const i64 count = gapless ? (end - begin) * args.dim : args.dim;
        fill_row(streamed, args.dx + row * args.dim, count, [&](auto at) { return g(at(dy), at(x)); });
    }
}

void activation_rows(void* context, i64 begin, i64 end, void*) {
    const ActivationForward& args = *static_cast<ActivationForward*>(context);
    switch (args.function) {
        case ActivationFunction::relu:
            return map_rows(args, begin, end, [](auto x) { return max(constant<decltype(x)>(0.0f), x); });
        case ActivationFunction::sigmoid: return map_rows(args, begin, end, [](auto x) { return sigmoid(x); });
        case ActivationFunction::silu: return map_rows(args, begin, end, [](auto x) { return silu(x); });
        case ActivationFunction::tanh: return map_rows(args, begin, end, [](auto x) { return tanh(x); });
    }
}

void activation_backward_rows(void* context, i64 begin, i64 end, void*) {
    const ActivationBackward& args = *static_cast<ActivationBackward*>(context);
    switch (args.function) {
        case ActivationFunction::relu:
            return map_rows(args, begin, end, [](auto dy, auto x) {
                using V = decltype(x);
                // dy for NaN, as in PyTorch: it is not less than the least normal number
                return select(less(x, constant<V>(1.17549435e-38f)), constant<V>(0.0f), dy);
            });
        case ActivationFunction::sigmoid:
            return map_rows(args, begin, end, [](auto dy, auto x) { return dy * sigmoid_gradient(x); });
        case ActivationFunction::silu:
            return map_rows(args, begin, end, [](auto dy, auto x) { return dy * silu_gradient(x); });
        case ActivationFunction::tanh:
            return map_rows(args, begin, end, [](auto dy, auto x) { return dy * tanh_gradient(x); });
    }
}

}  // namespace

void activation_forward(const ActivationForward& args) {
    ActivationForward context = args;
    parallel_for(args.rows, row_grain(args.dim), activation_rows, &context);
}

void activation_backward(const ActivationBackward& args) {
    ActivationBackward context = args;
    parallel_for(args.rows, row_grain(args.dim), activation_backward_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
