#include "row.h"

namespace fastattn::FASTATTN_ISA {

void l2_normalize_forward(const L2NormalizeForward& args) {
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        const float square = row_sum(args.dim, [&](i64 i, i64 n) {
            const vf v = load_n(x + i, n);
            return v * v;
        });
        const float norm = __builtin_sqrtf(square);
        const vf divisor = set1(norm < args.eps ? args.eps : norm);  // NaN stays
        for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, load_n(x + i, n) / divisor, n); });
    });
}

// (dy - u sum(u dy)) / ||x||, u = x / ||x||; dy / eps where eps takes the place of the norm.
void l2_normalize_backward(const L2NormalizeBackward& args) {
    for_rows(args.rows, args.dim, [&](i64 row) {
        float* dx = args.dx + row * args.dim;
        const float* dy = args.dy + row * args.lddy;
        const float* x = args.saved + row * args.lds;
        const vf2 sums = lane_sums<vf2>(args.dim, [&](i64 i, i64 n) {
            const vf v = load_n(x + i, n);
            return vf2{v * v, v * load_n(dy + i, n)};
        });
        const float norm = __builtin_sqrtf(reduce_add(sums.a));
        const bool clamped = norm < args.eps;
        const vf divisor = set1(clamped ? args.eps : norm);
        const vf along = set1(clamped ? 0.0f : reduce_add(sums.b) / norm);
        for_vectors(args.dim, [&](i64 i, i64 n) {
            store_n(dx + i, (load_n(dy + i, n) - load_n(x + i, n) / divisor * along) / divisor, n);
        });
    });
}

}  // namespace fastattn::FASTATTN_ISA
