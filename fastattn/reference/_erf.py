"""The error function, which NumPy lacks.

erf(x) = tanh(x * g(x^2)), where g(s) = atanh(erf(sqrt(s))) / sqrt(s) is smooth, even in x and nearly linear
in |x|, so that one rational function serves the whole axis: no branches, no cancellation near zero, and the
sign follows from x. The coefficients were fitted for this file with mpmath (60 digits): weighted least
squares on P - g Q at 100 Chebyshev nodes in x, re-weighted until the relative error of erf itself was level
(1.7e-16 for float64 up to |x| = 6, 3.4e-9 for float32 up to 4). x is clipped where erf has long rounded to 1.
"""

from __future__ import annotations

import numpy as np

from fastattn._types import Floats

# (where |x| is clipped, P, Q), coefficients from the constant term upwards
_DOUBLE = (
    6.0,
    (
        1.1283791670955123988,
        0.48747209157983650694,
        0.13727719024948426124,
        0.02398515794129929319,
        0.0030194842665553781444,
        0.00025668088888944805862,
        0.000014573292118264176929,
        4.341866487035039218e-7,
        2.6978197535155851881e-9,
    ),
    (
        1.0,
        0.34093104471975059639,
        0.090792188357765462724,
        0.013573143524118822603,
        0.00157766396449239931,
        0.00011119769956787131264,
        5.4194647117895264772e-6,
        8.8303283942175946596e-8,
        1.4348663402338670893e-10,
    ),
)
_SINGLE = (
    5.0,
    (1.128379170820949296, 0.27980562689118034278, 0.0426454119620883576, 0.0021781567634308318459),
    (1.0, 0.1568915126766872718, 0.023689007770433377123, 0.0003248992468682319819),
)


def _horner(coefficients: tuple[float, ...], s: Floats) -> Floats:
    """c0 + c1 s + c2 s^2 + ..."""
    y: Floats = s * s.dtype.type(coefficients[-1])
    for c in coefficients[-2:0:-1]:
        y += s.dtype.type(c)
        y *= s
    y += s.dtype.type(coefficients[0])
    return y


def erf(x: Floats) -> Floats:
    """erf(x) elementwise, in `x`'s float dtype: relative error about 1e-15 in float64, 4e-7 in float32.

    >>> erf(np.array([0.5, -1.0])).round(12).tolist()
    [0.520499877813, -0.84270079295]
    """
    limit, p, q = _DOUBLE if x.dtype.itemsize > 4 else _SINGLE
    x = np.clip(x, -limit, limit)
    s = x * x
    x *= _horner(p, s)
    x /= _horner(q, s)
    y: Floats = np.tanh(x, out=x)
    return y
