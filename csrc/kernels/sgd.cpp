#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void sgd_floats(const SgdForward& args, i64 begin, i64 end) {
    const vf minus_lr = set1(-args.lr), decay = set1(args.weight_decay);
    const vf momentum = set1(args.momentum), one_minus_dampening = set1(args.one_minus_dampening);
    float* param = args.param + begin;
    float* buffer = args.momentum_buffer ? args.momentum_buffer + begin : nullptr;
    const float* grad = args.grad + begin;
    for_vectors(end - begin, [&](i64 i, i64 n) {
        const vf p = load_n(param + i, n);
        vf g = fma(decay, p, load_n(grad + i, n));
        if (buffer) {
            const vf b = args.first ? g : fma(momentum, load_n(buffer + i, n), one_minus_dampening * g);
            store_n(buffer + i, b, n);
            g = args.nesterov ? fma(momentum, b, g) : b;
        }
        store_n(param + i, fma(minus_lr, g, p), n);
    });
}

}  // namespace

void sgd_forward(const SgdForward& args) {
    parallel_for(args.count, row_grain(1), [&](i64 begin, i64 end, float*) { sgd_floats(args, begin, end); });
}

}  // namespace fastattn::FASTATTN_ISA
