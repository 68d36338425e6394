#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void gelu_rows(void* context, i64 begin, i64 end, void*) {
    const GeluForward& args = *static_cast<GeluForward*>(context);
    for (i64 row = begin; row < end; ++row) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        if (args.tanh)
            for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, gelu_tanh(load_n(x + i, n)), n); });
        else
            for_vectors(args.dim, [&](i64 i, i64 n) { store_n(y + i, gelu(load_n(x + i, n)), n); });
    }
}

}  // namespace

void gelu_forward(const GeluForward& args) {
    GeluForward context = args;
    parallel_for(args.rows, row_grain(args.dim), gelu_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
