#include "../simd/math.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Logits per block. The maximum of a block is known before its exponentials are summed. The block stays in the
// first-level cache, so a vocabulary is read from memory once.
constexpr i64 block = 2048;

}  // namespace

void cross_entropy_forward(const CrossEntropyForward& args) {
    constexpr float inf = __builtin_inff();
    const float smoothing = args.label_smoothing;
    for_rows(args.rows, args.classes, [&](i64 row) {
        const i64 target = args.target[row];
        if (target == args.ignore_index) {
            args.loss[row] = 0.0f;
            args.lse[row] = 0.0;
            return;
        }
        const float* logits = args.logits + row * args.ldx;
        float largest = -inf, shift = 0.0f, sum = 0.0f, plain = 0.0f;  // plain: of logits - shift
        for (i64 i = 0; i < args.classes; i += block) {
            const float* x = logits + i;
            const i64 count = lesser(block, args.classes - i);
            const float here = row_max(count, [&](i64 j, i64 n) { return load_or(x + j, n, -inf); });
            if (here > largest) {
                sum *= __builtin_expf(largest - here);
                if (i > 0) plain += static_cast<float>(i) * (shift - here);
                largest = shift = here;
            }
            const vf s = set1(shift);
            if (smoothing > 0.0f) {
                const vf2 sums = lane_sums<vf2>(count, [&](i64 j, i64 n) {
                    return vf2{exp(load_or(x + j, n, -inf) - s), load_or(x + j, n, shift) - s};
                });
                sum += reduce_add(sums.a);
                plain += reduce_add(sums.b);
            } else {
                sum += row_sum(count, [&](i64 j, i64 n) { return exp(load_or(x + j, n, -inf) - s); });
            }
        }
        const float log_sum = __builtin_logf(sum);
        float loss = (1.0f - smoothing) * (shift - logits[target]) + log_sum;
        if (smoothing > 0.0f) loss -= smoothing * (plain / static_cast<float>(args.classes));
        args.loss[row] = loss;
        args.lse[row] = static_cast<double>(shift) + static_cast<double>(log_sum);
    });
}

void cross_entropy_backward(const CrossEntropyBackward& args) {
    const bool streamed = args.rows * args.classes >= streamed_from && args.dlogits != args.logits;
    for_rows(args.rows, args.classes, [&](i64 row) {
        float* dlogits = args.dlogits + row * args.classes;
        const i64 target = args.target[row];
        if (target == args.ignore_index) {
            for_vectors(args.classes, [&](i64 i, i64 n) { store_n(dlogits + i, zero(), n); });
            return;
        }
        const float* logits = args.logits + row * args.ldx;
        const float scale = args.dloss[row], lse = static_cast<float>(args.lse[row]);
        const float rest = static_cast<float>(args.lse[row] - static_cast<double>(lse));
        const float uniform = args.label_smoothing / static_cast<float>(args.classes);
        fill_row(streamed, dlogits, args.classes, [&](auto at) {
            const auto x = at(logits);
            using V = decltype(at(logits));
            return constant<V>(scale) * (exp(x - constant<V>(lse) - constant<V>(rest)) - constant<V>(uniform));
        });
        dlogits[target] -= scale * (1.0f - args.label_smoothing);
    });
}

}  // namespace fastattn::FASTATTN_ISA
