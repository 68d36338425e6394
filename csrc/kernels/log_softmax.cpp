#include "log_softmax.h"

namespace fastattn::FASTATTN_ISA {

void log_softmax_forward(const LogSoftmaxForward& args) {
    constexpr float inf = __builtin_inff();
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        const LogSum sum =
            log_sum_of(x, args.dim, row_max(args.dim, [&](i64 i, i64 n) { return load_or(x + i, n, -inf); }));
        const vf shift = set1(sum.shift), log_sum = set1(sum.log_sum);
        for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, load_n(x + i, n) - shift - log_sum, n); });
    });
}

void log_softmax_backward(const LogSoftmaxBackward& args) {
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* dx = args.dx + row * args.dim;
        const float* dy = args.dy + row * args.lddy;
        const float* y = args.saved + row * args.lds;
        const float sum = row_sum(args.dim, [&](i64 i, i64 n) { return load_n(dy + i, n); });
        fill_floats(dx, 0, args.dim, [&](auto at) {
            using V = decltype(at(y));
            return at(dy) - exp(at(y)) * constant<V>(sum);
        });
    });
}

}  // namespace fastattn::FASTATTN_ISA
