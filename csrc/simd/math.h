// Elementary functions over the vocabulary, written once. Each polynomial is our own weighted least-squares (Lawson)
// fit; the stated errors are of the fit, and float32 rounding adds about one unit in the last place.
#pragma once

#include "simd.h"

namespace fastattn::FASTATTN_ISA {
namespace {

template <int First, int Count, typename V, int N>
FASTATTN_INLINE V polynomial_part(const V (&powers)[4], const float (&c)[N]) {
    if constexpr (Count == 1) {
        return constant<V>(c[First]);
    } else {
        constexpr int level = Count > 8 ? 3 : Count > 4 ? 2 : Count > 2 ? 1 : 0;
        constexpr int half = 1 << level;
        return fma(polynomial_part<First + half, Count - half>(powers, c), powers[level],
                   polynomial_part<First, half>(powers, c));
    }
}

// c[0] + c[1] x + ... by Estrin's scheme: halves meet at x, x^2, x^4, x^8. Horner's single chain is so long that the
// processor cannot hold enough vectors at a time to hide it.
template <typename V, int N>
FASTATTN_INLINE V polynomial(V x, const float (&c)[N]) {
    static_assert(N <= 16);
    V powers[4] = {x};
    for (int i = 1; i < 4; ++i) powers[i] = powers[i - 1] * powers[i - 1];
    return polynomial_part<0, N>(powers, c);
}

// Adding 1.5 * 2^23 leaves no room for a fraction: the sum holds x, rounded to an integer, in its low bits. Subtracting
// the number again yields that integer; with a bias added in, to_exponent turns it into the power of two.
constexpr float rounding = 12582912.0f;

// 2^x for x <= 0, exactly 1 at 0 and exactly 0 from -126.5 down; NaN stays. Fit error 2e-9.
template <typename V>
FASTATTN_INLINE V exp2_nonpositive(V x) {
    const V clamped = max(constant<V>(-127.0f), x);
    const V biased = clamped + constant<V>(rounding + 127.0f);
    const V f = clamped - (biased - constant<V>(rounding + 127.0f));
    const V p = fma(f,
                    polynomial(f, {0.6931472062883384f, 0.24022651332449732f, 0.05550327742601885f,
                                   0.009618005409700975f, 0.0013400283109825657f, 0.000154758981702776f}),
                    constant<V>(1.0f));
    return p * to_exponent(biased);
}

// e^x: exactly 1 at 0, exactly 0 below -87, inf above 88.73; NaN stays. Fit error 3e-9.
template <typename V>
FASTATTN_INLINE V exp(V x) {
    const V clamped = min(constant<V>(89.0f), max(constant<V>(-87.3f), x));
    const V biased =
        fma(clamped, constant<V>(1.44269504f), constant<V>(rounding + 126.0f));  // 2^128 has no float: go one below
    const V n = biased - constant<V>(rounding + 126.0f);
    // ln 2 in two parts: n times the first is exact
    const V r = fma(n, constant<V>(2.12194440e-4f), fma(n, constant<V>(-0.693359375f), clamped));
    const V q = polynomial(r, {0.5000000095179091f, 0.16666518837468747f, 0.04166620582935966f, 0.008368889558097234f,
                               0.0013950489161062235f});
    const V p = fma(r * r, q, r) + constant<V>(1.0f);
    return p * to_exponent(biased) * constant<V>(2.0f);
}

// x p(x^2) / q(x^2), fitted on [0, 9.01] where tanh becomes 1: relative error 2.1e-8, to which the quotient's rounding
// adds about five units in the last place, so neighbours may be out of order. Beyond the interval it exceeds 1, at the
// clamp by more than rounding can undo, so the ends are exactly 1.
template <typename V>
FASTATTN_INLINE V tanh(V x) {
    const V c = max(constant<V>(-9.6f), min(constant<V>(9.6f), x));
    const V t = c * c;
    const V p = polynomial(t, {0.9999999792448858f, 0.13380373840067514f, 0.0034948136654149057f,
                               2.0596314513652143e-05f, 1.3336899302747762e-08f});
    const V q = polynomial(
        t, {1.0f, 0.46713689259878f, 0.025874036834601277f, 0.00032843674032338374f, 7.769305053209223e-07f});
    return max(constant<V>(-1.0f), min(constant<V>(1.0f), c * p / q));
}

template <typename V>
FASTATTN_INLINE V sigmoid(V x) {
    return constant<V>(1.0f) / (constant<V>(1.0f) + exp(-x));
}

// x / (1 + e^-x); the clamp keeps -inf from becoming -inf / inf.
template <typename V>
FASTATTN_INLINE V silu(V x) {
    return max(constant<V>(-100.0f), x) / (constant<V>(1.0f) + exp(-x));
}

// x Phi(x) = max(x, 0) + n Phi(n), n = -|x|: no cancellation on either side. Phi(n) = 2^q(n), q fitted on [-6, 0] and
// falling on from there, so that the product ends at 0; absolute error below 3e-8.
template <typename V>
FASTATTN_INLINE V gelu(V x) {
    const V n = max(constant<V>(-100.0f), -abs(x));
    const V q = polynomial(
        n, {-0.9999997497217095f, 1.1511101887366928f, -0.45918406418603985f, 0.05253724235706704f,
            0.007076889102060506f, 0.00010078416643938672f, -0.00023268161488997037f, -6.309724042985218e-05f,
            -8.704213731687706e-06f, -6.494312442677367e-07f, -2.0700584934605895e-08f});
    return fma(n, exp2_nonpositive(q), max(constant<V>(0.0f), x));
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3)
template <typename V>
FASTATTN_INLINE V gelu_tanh(V x) {
    const V c = max(constant<V>(-16.0f), x);
    const V u2 = c * fma(c * c, constant<V>(2.0f * 0.7978845608f * 0.044715f), constant<V>(2.0f * 0.7978845608f));
    return c / (constant<V>(1.0f) + exp(-u2));
}

// The derivatives of gelu, gelu_tanh and silu satisfy f'(x) = 1 - f'(-x): each is computed for n = -|x|, where nothing
// cancels.
template <typename V>
FASTATTN_INLINE V reflected(V x, V negative) {
    return select(less(x, constant<V>(0.0f)), negative, constant<V>(1.0f) - negative);
}

// Phi(n) + n phi(n) = h(n) e^(-n^2 / 2), h fitted on [-6, 0]: absolute error 2e-8. At the clamp the power is 0.
template <typename V>
FASTATTN_INLINE V gelu_gradient(V x) {
    const V n = max(constant<V>(-14.0f), -abs(x));
    const V h =
        polynomial(n, {0.4999999830399724f, 0.7978828826626596f, 0.24997257315091853f, 0.1328057878222687f,
                       0.061923935042669936f, 0.02547182103479719f, 0.009003850270203765f, 0.0025900917186951217f,
                       0.000563653149555341f, 8.477107222642351e-05f, 7.708787402477914e-06f, 3.155434399219259e-07f});
    return reflected(x, h * exp2_nonpositive(n * (n * constant<V>(-0.72134752f))));
}

// With s = 1 / (1 + e^-v(n)): s + slope s (1 - s), slope = n v'(n); v <= 0.
template <typename V>
FASTATTN_INLINE V logistic_gradient(V v, V slope) {
    const V e = exp(v);
    const V r = constant<V>(1.0f) / (constant<V>(1.0f) + e);
    return e * r * fma(slope, r, constant<V>(1.0f));
}

template <typename V>
FASTATTN_INLINE V gelu_tanh_gradient(V x) {
    constexpr float a = 2.0f * 0.7978845608f, b = a * 0.044715f;
    const V n = max(constant<V>(-16.0f), -abs(x));
    const V t = n * n;
    const V v = n * fma(t, constant<V>(b), constant<V>(a));
    const V slope = n * fma(t, constant<V>(3.0f * b), constant<V>(a));
    return reflected(x, logistic_gradient(v, slope));
}

template <typename V>
FASTATTN_INLINE V silu_gradient(V x) {
    const V n = max(constant<V>(-100.0f), -abs(x));
    return reflected(x, logistic_gradient(n, n));
}

// s (1 - s) = e / (1 + e)^2, e = e^-|x|
template <typename V>
FASTATTN_INLINE V sigmoid_gradient(V x) {
    const V e = exp(-abs(x));
    const V r = constant<V>(1.0f) / (constant<V>(1.0f) + e);
    return e * r * r;
}

// 1 - tanh(x)^2 = 4 e / (1 + e)^2, e = e^(-2 |x|)
template <typename V>
FASTATTN_INLINE V tanh_gradient(V x) {
    const V n = -abs(x);
    const V e = exp(n + n);
    const V r = constant<V>(2.0f) / (constant<V>(1.0f) + e);
    return e * r * r;
}

// visit(f), where y = f(x) is the activation.
template <typename Visit>
FASTATTN_INLINE void with_activation(Activation activation, Visit visit) {
    switch (activation) {
        case Activation::none: return visit([](auto x) { return x; });
        case Activation::relu: return visit([](auto x) { return max(constant<decltype(x)>(0.0f), x); });
        case Activation::sigmoid: return visit([](auto x) { return sigmoid(x); });
        case Activation::gelu: return visit([](auto x) { return gelu(x); });
        case Activation::gelu_tanh: return visit([](auto x) { return gelu_tanh(x); });
        case Activation::silu: return visit([](auto x) { return silu(x); });
        case Activation::tanh: return visit([](auto x) { return tanh(x); });
    }
}

// visit(f), where dx = f(dy, x) is the activation's gradient.
template <typename Visit>
FASTATTN_INLINE void with_gradient(Activation activation, Visit visit) {
    switch (activation) {
        case Activation::none: return visit([](auto dy, auto) { return dy; });
        case Activation::relu:
            return visit([](auto dy, auto x) {
                using V = decltype(x);
                // dy for NaN, as in PyTorch: NaN is not less than the smallest normal number
                return select(less(x, constant<V>(1.17549435e-38f)), constant<V>(0.0f), dy);
            });
        case Activation::sigmoid: return visit([](auto dy, auto x) { return dy * sigmoid_gradient(x); });
        case Activation::gelu: return visit([](auto dy, auto x) { return dy * gelu_gradient(x); });
        case Activation::gelu_tanh: return visit([](auto dy, auto x) { return dy * gelu_tanh_gradient(x); });
        case Activation::silu: return visit([](auto dy, auto x) { return dy * silu_gradient(x); });
        case Activation::tanh: return visit([](auto dy, auto x) { return dy * tanh_gradient(x); });
    }
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
