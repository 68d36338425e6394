#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void layer_norm_rows(void* context, i64 begin, i64 end, void*) {
    const LayerNormForward& args = *static_cast<LayerNormForward*>(context);
    for (i64 row = begin; row < end; ++row) {
        float* y = args.y + row * args.ldy;
        const float* x = args.x + row * args.ldx;
        if (args.residual) {
            const float* residual = args.residual + row * args.ldr;
            for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, load_n(x + i, n) + load_n(residual + i, n), n); });
            x = y;
        }
        const Moments moments = normalize_row(y, x, args.weight, args.bias, args.dim, args.eps);
        if (args.mean) args.mean[row] = moments.mean;
        if (args.rstd) args.rstd[row] = moments.rstd;
    }
}

}  // namespace

void layer_norm_forward(const LayerNormForward& args) {
    LayerNormForward context = args;
    parallel_for(args.rows, row_grain(args.dim), layer_norm_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
