#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Half as many doubles as there are floats in a vector.
typedef double vd __attribute__((vector_size(4 * W)));
typedef float half __attribute__((vector_size(2 * W)));

FASTATTN_INLINE void add_squares(vd& sum, const float* x) {
    half h;
    __builtin_memcpy(&h, x, sizeof h);
    const vd exact = __builtin_convertvector(h, vd);
    sum += exact * exact;
}

double sum_of_squares(const GradientNormForward::Piece& piece) {
    const float* x = piece.data;
    const i64 count = piece.count;
    vd s0 = {}, s1 = {}, s2 = {}, s3 = {};
    i64 i = 0;
    for (; i + 2 * W <= count; i += 2 * W) {
        add_squares(s0, x + i);
        add_squares(s1, x + i + W / 2);
        add_squares(s2, x + i + W);
        add_squares(s3, x + i + W + W / 2);
    }
    float rest[2 * W] = {};
    for (i64 j = 0; j < count - i; ++j) rest[j] = x[i + j];
    add_squares(s0, rest);
    add_squares(s1, rest + W / 2);
    add_squares(s2, rest + W);
    add_squares(s3, rest + W + W / 2);
    s0 = (s0 + s1) + (s2 + s3);
    double sum = 0.0;
    for (int lane = 0; lane < W / 2; ++lane) sum += s0[lane];
    return sum;
}

}  // namespace

void gradient_norm_forward(const GradientNormForward& args) {
    parallel_for(args.count, 4, [&](i64 begin, i64 end, float*) {
        for (i64 i = begin; i < end; ++i) args.sums[i] = sum_of_squares(args.pieces[i]);
    });
}

}  // namespace fastattn::FASTATTN_ISA
