"""Exponential and logarithm in plain arithmetic, so that loops over them compile to vector instructions.

Arguments have to be finite, those of the logarithm positive and normal numbers. Relative errors are below 1e-11.
"""

# mypy: disable-error-code="no-untyped-def, call-arg, var-annotated"
from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from ._functions import inline

# adding it to a double leaves the nearest whole number in the low bits
_ROUND = 6755399441055744.0
_ROUND_BITS = 0x4338000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
_LN2 = 0.6931471805599453
_LOG2_E = 1.4426950408889634


@intrinsic
def _to_bits(typing_context, x):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def _from_bits(typing_context, x):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate


@inline(always=True, contract=True)
def vexp(x: float) -> float:
    """Exponential, of arguments beyond +-690 as of the bound."""
    t = min(max(x * _LOG2_E, -996.0), 996.0)
    rounded = t + _ROUND
    r = (t - (rounded - _ROUND)) * _LN2
    p = 1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r * (1 / 362880 + r / 3628800))))
    p = 1.0 + r * (1.0 + r * (0.5 + r * (1 / 6 + r * (1 / 24 + r * p))))
    return p * _from_bits((_to_bits(rounded) + 1023) << 52)


@inline(always=True, contract=True)
def vlog(x: float) -> float:
    """Natural logarithm: ``x = m 2^e`` with `m` around 1, and ``log m`` from the series of the inverse tanh."""
    bits = _to_bits(x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    m = _from_bits(bits - (exponent << 52))
    s = (m - 1.0) / (m + 1.0)
    q = s * s
    p = 1 / 9 + q * (1 / 11 + q * (1 / 13 + q * (1 / 15 + q / 17)))
    p = q * (1 / 3 + q * (1 / 5 + q * (1 / 7 + q * p)))
    e = _from_bits(exponent + _ROUND_BITS) - _ROUND
    return e * _LN2 + 2.0 * s * (1.0 + p)
