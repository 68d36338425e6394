#include "../parallel.h"
#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

template <typename F>
FASTATTN_INLINE void map_rows(const GeluForward& args, i64 begin, i64 end, F f) {
    const bool streamed = args.rows * args.dim >= streamed_from;
    const bool gapless = args.ldx == args.dim;  // then the rows are one
    const i64 step = gapless ? end - begin : 1;
    for (i64 row = begin; row < end; row += step) {
        float* y = args.y + row * args.dim;
        const float* x = args.x + row * args.ldx;
        if (streamed)
            map_floats_streamed(y, x, step * args.dim, f);
        else
            map_floats(y, x, step * args.dim, f);
    }
}

void gelu_rows(void* context, i64 begin, i64 end, void*) {
    const GeluForward& args = *static_cast<GeluForward*>(context);
    if (args.tanh)
        map_rows(args, begin, end, [](auto x) { return gelu_tanh(x); });
    else
        map_rows(args, begin, end, [](auto x) { return gelu(x); });
}

}  // namespace

void gelu_forward(const GeluForward& args) {
    GeluForward context = args;
    parallel_for(args.rows, row_grain(args.dim), gelu_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
