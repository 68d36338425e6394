#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void adamw_floats(const AdamwForward& args, i64 begin, i64 end) {
    const vf decay = set1(-args.decay), l2 = set1(args.l2), step_size = set1(args.step_size);
    const vf beta1_step = set1(args.beta1_step);
    const vf beta2 = set1(args.beta2), one_minus_beta2 = set1(args.one_minus_beta2);
    const vf root_scale = set1(args.root_scale), eps = set1(args.eps);
    float *param = args.param + begin, *exp_avg = args.exp_avg + begin, *exp_avg_sq = args.exp_avg_sq + begin;
    const float* grad = args.grad + begin;
    for_vectors(end - begin, [&](i64 i, i64 n) {
        vf p = load_n(param + i, n);
        const vf g = fma(l2, p, load_n(grad + i, n));
        const vf old = load_n(exp_avg + i, n);
        const vf m = args.from_grad ? fma(beta1_step, old - g, g) : fma(beta1_step, g - old, old);
        const vf v = fma(one_minus_beta2 * g, g, beta2 * load_n(exp_avg_sq + i, n));
        p = fma(decay, p, p);
        store_n(exp_avg + i, m, n);
        store_n(exp_avg_sq + i, v, n);
        store_n(param + i, p - step_size * m / fma(root_scale, sqrt(v), eps), n);
    });
}

}  // namespace

void adamw_forward(const AdamwForward& args) {
    parallel_for(args.count, row_grain(1), [&](i64 begin, i64 end, float*) { adamw_floats(args, begin, end); });
}

}  // namespace fastattn::FASTATTN_ISA
