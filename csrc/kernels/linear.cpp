#include "../simd/math.h"
#include "product.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Rows [begin, end), one block of them: d = dy * act'(pre_activation), and the sum of d.
template <typename F>
FASTATTN_INLINE void differentiate_rows(const LinearBackward& args, i64 begin, i64 end, F f) {
    float* sums = args.block_sums ? args.block_sums + begin / sum_block * args.n : nullptr;
    for (i64 row = begin; row < end; ++row) {
        const float* d = args.dy + row * args.ldy;
        if (args.d) {
            const float* pre = args.pre_activation + row * args.ldp;
            float* to = args.d + row * args.n;
            i64 i = 0;
            for (; i + 2 * W <= args.n; i += 2 * W) store2(to + i, load2(d + i) * f(load2(pre + i)));
            for_vectors(args.n - i, [&](i64 j, i64 n) {
                store_n(to + i + j, load_n(d + i + j, n) * f(load_n(pre + i + j, n)), n);
            });
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
    const auto apply = [&](auto f) __attribute__((always_inline)) { differentiate_rows(args, begin, end, f); };
    switch (args.activation) {
        case Activation::none: return apply([](auto x) { return x; });
        case Activation::relu:
            return apply([](auto x) {
                using V = decltype(x);
                // 1 for NaN, as in PyTorch: it is not less than the least normal number
                return select(less(x, constant<V>(1.17549435e-38f)), constant<V>(0.0f), constant<V>(1.0f));
            });
        case Activation::gelu: return apply([](auto x) { return gelu_gradient(x); });
        case Activation::gelu_tanh: return apply([](auto x) { return gelu_tanh_gradient(x); });
        case Activation::silu: return apply([](auto x) { return silu_gradient(x); });
        case Activation::tanh: return apply([](auto x) { return tanh_gradient(x); });
    }
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
    // Last, when nothing asks for memory any more: a call that fails has added to nothing.
    if (args.dbias) add_block_sums(args.dbias, args.block_sums, args.n, sum_blocks(args.m), args.n, args.add_to_dbias);
}

}  // namespace fastattn::FASTATTN_ISA
