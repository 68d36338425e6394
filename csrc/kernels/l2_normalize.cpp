#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void l2_normalize_rows(void* context, i64 begin, i64 end, void*) {
    const L2NormalizeForward& args = *static_cast<L2NormalizeForward*>(context);
    for (i64 row = begin; row < end; ++row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        const float square = row_sum(args.dim, [&](i64 i, i64 n) {
            const vf v = load_n(x + i, n);
            return v * v;
        });
        const float norm = __builtin_sqrtf(square);
        const vf divisor = set1(norm < args.eps ? args.eps : norm);  // NaN stays
        for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, load_n(x + i, n) / divisor, n); });
    }
}

}  // namespace

void l2_normalize_forward(const L2NormalizeForward& args) {
    L2NormalizeForward context = args;
    parallel_for(args.rows, row_grain(args.dim), l2_normalize_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
