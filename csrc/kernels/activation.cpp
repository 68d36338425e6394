#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

template <typename F>
FASTATTN_INLINE void map(const ActivationForward& args, F f) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_runs(args, args.ldx == args.dim, [&](i64 row, i64 count) {
        const float* x = args.x + row * args.ldx;
        fill_row(streamed, args.y + row * args.dim, count, [&](auto at) { return f(at(x)); });
    });
}

// dx = gradient(dy, x)
template <typename F>
FASTATTN_INLINE void map(const ActivationBackward& args, F gradient) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    for_runs(args, args.ldx == args.dim && args.lddy == args.dim, [&](i64 row, i64 count) {
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.x + row * args.ldx;
        fill_row(streamed, args.dx + row * args.dim, count, [&](auto at) { return gradient(at(dy), at(x)); });
    });
}

}  // namespace

void activation_forward(const ActivationForward& args) {
    switch (args.function) {
        case ActivationFunction::relu: return map(args, [](auto x) { return max(constant<decltype(x)>(0.0f), x); });
        case ActivationFunction::sigmoid: return map(args, [](auto x) { return sigmoid(x); });
        case ActivationFunction::silu: return map(args, [](auto x) { return silu(x); });
        case ActivationFunction::tanh: return map(args, [](auto x) { return tanh(x); });
    }
}

void activation_backward(const ActivationBackward& args) {
    switch (args.function) {
        case ActivationFunction::relu:
            return map(args, [](auto dy, auto x) {
                using V = decltype(x);
                // dy for NaN, as in PyTorch: it is not less than the least normal number
                return select(less(x, constant<V>(1.17549435e-38f)), constant<V>(0.0f), dy);
            });
        case ActivationFunction::sigmoid: return map(args, [](auto dy, auto x) { return dy * sigmoid_gradient(x); });
        case ActivationFunction::silu: return map(args, [](auto dy, auto x) { return dy * silu_gradient(x); });
        case ActivationFunction::tanh: return map(args, [](auto dy, auto x) { return dy * tanh_gradient(x); });
    }
}

}  // namespace fastattn::FASTATTN_ISA
