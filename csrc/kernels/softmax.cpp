#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {

void softmax_forward(const SoftmaxForward& args) {
    constexpr float inf = __builtin_inff();
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        const float largest = row_max(args.dim, [&](i64 i, i64 n) { return load_or(x + i, n, -inf); });
        const vf shift = set1(largest == -inf ? 0.0f : largest);  // a row of -inf gives 0
        const float sum = row_sum(args.dim, [&](i64 i, i64 n) {
            const vf e = exp(load_or(x + i, n, -inf) - shift);
            store_n(y + i, e, n);
            return e;
        });
        const vf divisor = set1(sum == 0.0f ? 1.0f : sum);
        for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, load_n(y + i, n) / divisor, n); });
    });
}

void softmax_backward(const SoftmaxBackward& args) {
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* dx = args.dx + row * args.dim;
        const float* dy = args.dy + row * args.lddy;
        const float* y = args.saved + row * args.lds;
        const vf sum = set1(row_sum(args.dim, [&](i64 i, i64 n) { return load_n(dy + i, n) * load_n(y + i, n); }));
        for_vectors(args.dim, [&](i64 i, i64 n) { store_n(dx + i, load_n(y + i, n) * (load_n(dy + i, n) - sum), n); });
    });
}

}  // namespace fastattn::FASTATTN_ISA
