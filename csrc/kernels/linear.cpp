#include "../simd/math.h"
#include "product.h"
#include "quantize.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// One block of rows, [begin, end): d = gradient(dy, pre_activation), and the sum of d.
template <typename F>
FASTATTN_INLINE void differentiate_rows(const LinearBackward& args, i64 begin, i64 end, F gradient) {
    float* sums = args.block_sums ? args.block_sums + begin / sum_block * args.n : nullptr;
    for (i64 row = begin; row < end; ++row) {
        const float* d = args.dy + row * args.ldy;
        if (args.d) {
            const float* pre = args.pre_activation + row * args.ldp;
            float* to = args.d + row * args.n;
            fill_floats(to, 0, args.n, [&](auto at) { return gradient(at(d), at(pre)); });
            d = to;
        }
        if (!sums) continue;
        for_vectors(args.n, [&](i64 i, i64 n) {
            const vf value = load_n(d + i, n);
            store_n(sums + i, row == begin ? value : load_n(sums + i, n) + value, n);
        });
    }
}

void differentiate(const LinearBackward& args, i64 begin, i64 end) {
    with_gradient(args.activation, [&](auto gradient) __attribute__((always_inline)) {
        differentiate_rows(args, begin, end, gradient);
    });
}

}  // namespace

void linear_forward(const LinearForward& args) {
    const bool in_panels = args.weight.panels;
    Product p{};
    p.y = args.y;
    p.ldy = args.ldy;
    p.c = args.pre_activation ? args.pre_activation : args.y;
    p.ldc = args.pre_activation ? args.n : args.ldy;
    p.a = args.x;
    p.lda = args.ldx;
    p.b = in_panels ? args.weight.panels : args.weight.array;
    p.ldb = args.weight.ld;
    p.layout_b = in_panels ? LayoutB::panels : LayoutB::columns;
    p.bias = args.bias;
    p.residual = args.residual;
    p.ldr = args.ldr;
    p.rows = args.m;
    p.columns = args.n;
    p.depth = args.k;
    p.activation = args.activation;
    p.element = args.weight.element;
    if (p.element == Element::int8) {
        const QuantizedRows x = quantize_rows(args.x, args.ldx, args.m, args.k, args.weight.input_scales);
        p.a = x.bytes;
        p.lda = p.depth = x.depth;
        p.dequantization = {x.scales, x.zeros, args.weight.scales, args.weight.sums};
    }
    multiply(p);
}

void linear_backward(const LinearBackward& args) {
    if (args.d || args.dbias)
        parallel_for(args.m, sum_block, [&](i64 begin, i64 end, float*) { differentiate(args, begin, end); });
    Product p{};  // of d with W, or of d^T with x
    p.a = args.d ? args.d : args.dy;
    p.lda = args.d ? args.n : args.ldy;
    p.ldy = p.ldc = p.columns = args.k;
    if (args.dx) {
        const bool in_panels = args.weight.panels;
        p.y = p.c = args.dx;
        p.b = in_panels ? args.weight.panels : args.weight.array;
        p.ldb = args.weight.ld;
        p.layout_b = in_panels ? LayoutB::transposed_panels : LayoutB::rows;
        p.rows = args.m;
        p.depth = args.n;
        multiply(p);
    }
    if (args.dweight) {
        p.a_by_columns = true;
        p.y = p.c = args.dweight;
        p.b = args.x;
        p.ldb = args.ldx;
        p.layout_b = LayoutB::rows;
        p.rows = args.n;
        p.depth = args.m;
        p.accumulate = args.add_to_dweight;
        multiply(p);
    }
    // Last, after all allocations: a call that fails has added nothing.
    if (args.dbias) add_block_sums(args.dbias, args.block_sums, args.n, sum_blocks(args.m), args.n, args.add_to_dbias);
}

}  // namespace fastattn::FASTATTN_ISA
