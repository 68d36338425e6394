// Elementary functions over the vocabulary, written once. Each polynomial is a weighted least-squares (Lawson) fit of
// our own; the errors named are those of the fit, float32 rounding adds about one unit in the last place.
#pragma once

#include "simd.h"

namespace fastattn::FASTATTN_ISA {
namespace {

template <int N>
FASTATTN_INLINE vf polynomial(vf x, const float (&c)[N]) {  // c[0] + c[1] x + ... by Horner's rule
    vf y = set1(c[N - 1]);
#pragma GCC unroll 16
    for (int i = N - 2; i >= 0; --i) y = fma(y, x, set1(c[i]));
    return y;
}

// 2^x for x <= 0 (0 below -126), fit error 2e-9; NaN stays.
FASTATTN_INLINE vf exp2_nonpositive(vf x) {
    const vf clamped = max(set1(-127.0f), x);
    const vf n = round(clamped);
    const vf f = clamped - n;
    const vf p = fma(f, polynomial(f, {0.6931472062883384f, 0.24022651332449732f, 0.05550327742601885f,
                                       0.009618005409700975f, 0.0013400283109825657f, 0.000154758981702776f}),
                     set1(1.0f));
    return p * pow2(n);  // pow2(-127) is 0
}

// e^x: exactly 1 at 0, exactly 0 below -87, inf above 88.73; NaN stays. Fit error 3e-9.
FASTATTN_INLINE vf exp(vf x) {
    const vf clamped = min(set1(89.0f), max(set1(-87.3f), x));
    const vf n = round(clamped * set1(1.44269504f));
    // ln 2 in two parts: n times the first is exact
    const vf r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), clamped));
    const vf q = polynomial(r, {0.5000000095179091f, 0.16666518837468747f, 0.04166620582935966f,
                                0.008368889558097234f, 0.0013950489161062235f});
    const vf p = fma(r * r, q, r) + set1(1.0f);
    return p * pow2(n - set1(1.0f)) * set1(2.0f);  // 2^128 has no float, and pow2(-127) is 0
}

FASTATTN_INLINE vf tanh(vf x) {
    const vf a = abs(x);
    const vf t = x * x;
    const vf small = fma(x * t, polynomial(t, {-0.33333283923599666f, 0.13331491248704164f, -0.053743495274604834f,
                                               0.020650579041140562f, -0.005717036598462838f}),
                         x);
    const vf large = set1(1.0f) - set1(2.0f) / (exp(a + a) + set1(1.0f));
    return select(less(a, set1(0.625f)), small, select(less(x, zero()), -large, large));
}

// x / (1 + e^-x); the clamp keeps -inf from becoming -inf / inf.
FASTATTN_INLINE vf silu(vf x) { return max(set1(-100.0f), x) / (set1(1.0f) + exp(-x)); }

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), Phi(-a) = 2^-q(a) with q fitted on [0, 7.5], 0 beyond: no cancellation on
// either side, absolute error below 3e-8.
FASTATTN_INLINE vf gelu(vf x) {
    const vf a = min(abs(x), set1(8.0f));
    const vf q = polynomial(a, {0.9999999554919174f, 1.1511062230520759f, 0.4592078227136727f, 0.05246772637326038f,
                                -0.006961834279574119f, -1.436426944373989e-05f, 0.0003050483741590838f,
                                -9.223376342690827e-05f, 1.6241400821824762e-05f, -1.8788643642352863e-06f,
                                1.4062976505245935e-07f, -6.191145657977193e-09f, 1.2184319620514082e-10f});
    const vf tail = a * exp2_nonpositive(-q);
    return max(zero(), x) - select(less(set1(7.5f), a), zero(), tail);
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
FASTATTN_INLINE vf gelu_tanh(vf x) {
    const vf c = max(set1(-16.0f), x);
    const vf u2 = c * fma(c * c, set1(2.0f * 0.7978845608f * 0.044715f), set1(2.0f * 0.7978845608f));
    return c / (set1(1.0f) + exp(-u2));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
