"""Fused loops of `mambacl.learners.fused` and their adjoints, compiled by numba.

Legend: R rows, E channels, D width, G groups of S numbers, I items of work.

A call does the items from `begin` to `end`. Sums over several items are kept apart by item, which depends on shapes alone: results
have equal bits for any number of threads. Inner loops run over contiguous numbers and become vector code.

Everything numba compiles here is in this file: its cache does not notice changes of files imported there.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic as typed_intrinsic
from numba.extending import overload

# No flag lets the compiler assume away NaN or infinity. `reassoc` is for sums over a row.
FAST: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy", "nogil": True}
INNER: dict[str, Any] = FAST | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}

intrinsic = cast(Callable[[Callable[..., Any]], Any], typed_intrinsic)  # callers give no typing context


def exp(x):
    """exp(x) of x <= 0. In float32 it vectorises, and is 0 under -87."""
    return np.exp(x)


@overload(exp, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp(x):
    if x != types.float32:
        return lambda x: np.exp(x)
    low, log2e, shift = np.float32(-87), np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
    high_ln2, low_ln2 = np.float32(0.693359375), np.float32(-2.12194440e-4)  # their sum is ln 2, products are exact
    c2, c3, c4 = np.float32(0.5), np.float32(1.6666665459e-1), np.float32(4.1665795894e-2)
    c5, c6, c7 = np.float32(8.3334519073e-3), np.float32(1.3981999507e-3), np.float32(1.9875691500e-4)  # of Cephes
    zero, one = np.float32(0), np.float32(1)

    def vectorisable(x):
        rounded = x * log2e + shift  # its low bits hold the power of two
        n = rounded - shift
        r = x - n * high_ln2 - n * low_ln2
        p = np.float32((((((c7 * r + c6) * r + c5) * r + c4) * r + c3) * r + c2) * (r * r) + r + one)
        power = np.int32(p.view(np.int32) + (np.float32(rounded).view(np.int32) << 23)).view(np.float32)
        return zero if x < low else power

    return vectorisable


def log1p(x):
    """log(1 + x) of 0 <= x <= 1. In float32 it vectorises."""
    return np.log1p(x)


@overload(log1p, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _log1p(x):
    if x != types.float32:
        return lambda x: np.log1p(x)
    two = np.float32(2)
    c3, c5, c7, c9 = (np.float32(2 / n) for n in (3, 5, 7, 9))
    c11, c13 = np.float32(2 / 11), np.float32(2 / 13)

    def vectorisable(x):
        # log(1 + x) = 2 artanh(s), whose series at s <= 1/3 has passed float32 after seven terms
        s = x / (two + x)
        q = s * s
        return s * (two + q * (c3 + q * (c5 + q * (c7 + q * (c9 + q * (c11 + q * c13))))))

    return vectorisable


@njit(**INNER)
def _sigmoid(x, zero, one):
    e = exp(-abs(x))
    return (e if x < zero else one) / (one + e)


# ---- elementwise ----------------------------------------------------------------------------------------------------


@njit(cache=True, **FAST)
def gate(begin, end, block, y_R, z_R, out_R):
    zero, one = y_R.dtype.type(0), y_R.dtype.type(1)
    for item in range(begin, end):
        start, stop = item * block, (item + 1) * block
        y, z, out = y_R[start:stop], z_R[start:stop], out_R[start:stop]
        for r in range(len(y)):
            out[r] = y[r] * (z[r] * _sigmoid(z[r], zero, one))


@njit(cache=True, **FAST)
def gate_adjoint(begin, end, block, d_out_R, y_R, z_R, dy_R, dz_R):
    zero, one = y_R.dtype.type(0), y_R.dtype.type(1)
    for item in range(begin, end):
        start, stop = item * block, (item + 1) * block
        d_out, y, z, dy, dz = d_out_R[start:stop], y_R[start:stop], z_R[start:stop], dy_R[start:stop], dz_R[start:stop]
        for r in range(len(y)):
            s = _sigmoid(z[r], zero, one)
            dy[r] = d_out[r] * (z[r] * s)
            dz[r] = d_out[r] * y[r] * (s * (one + z[r] * (one - s)))


# ---- matrices -------------------------------------------------------------------------------------------------------

SIDE = 16  # of a block that is transposed in registers


@intrinsic
def _transpose_block(typing_context, x, first, stride, out, to, step):
    """Of SIDE x SIDE numbers, from x, where rows are `stride` apart, to out, where columns are `step` apart."""

    def generate(context, builder, signature, arguments):
        x_, first, stride, out_, to, step = arguments
        vector = ir.VectorType(context.get_value_type(x.dtype), SIDE).as_pointer()
        align = x.dtype.bitwidth // 8

        def address(kind, array, index):
            return builder.bitcast(builder.gep(context.make_array(kind)(context, builder, array).data, [index]), vector)

        rows = []
        for _ in range(SIDE):
            rows.append(builder.load(address(x, x_, first), align=align))
            first = builder.add(first, stride)
        half = SIDE
        while half := half // 2:  # the upper right quarter and the lower left one change places, in each quarter again
            upper = [lane + (SIDE - half if lane & half else 0) for lane in range(SIDE)]
            lower = [lane + (SIDE if lane & half else half) for lane in range(SIDE)]
            for row in range(SIDE):
                if not row & half:
                    pair = rows[row], rows[row + half]
                    rows[row], rows[row + half] = (_shuffle(builder, *pair, lanes) for lanes in (upper, lower))
        for column in rows:
            builder.store(column, address(out, out_, to), align=align)
            to = builder.add(to, step)
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, out, types.intp, types.intp), generate


def _shuffle(builder, x, y, lanes):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


@njit(cache=True, **FAST)
def transpose(begin, end, rows, D, x, out):
    R = len(x) // D
    blocks = D - D % SIDE
    for item in range(begin, end):
        start, stop = item * rows, min((item + 1) * rows, R)
        for d in range(0, blocks, SIDE):
            for r in range(start, stop - SIDE + 1, SIDE):
                _transpose_block(x, r * D + d, D, out, d * R + r, R)
        for d in range(D):
            for r in range(start if d >= blocks else stop - (stop - start) % SIDE, stop):
                out[d * R + r] = x[r * D + d]


# ---- rows with parameters a channel ---------------------------------------------------------------------------------


@njit(cache=True, **FAST)
def softplus(begin, end, rows, x_RE, bias_E, y_RE):
    zero, high = x_RE.dtype.type(0), x_RE.dtype.type(20)
    for item in range(begin, end):
        for r in range(item * rows, min((item + 1) * rows, len(x_RE))):
            x_E, y_E = x_RE[r], y_RE[r]
            for e in range(len(bias_E)):
                x = x_E[e] + bias_E[e]
                y = (zero if x < zero else x) + log1p(exp(-abs(x)))  # NaN stays
                y_E[e] = x if x > high else y


@njit(cache=True, **FAST)
def softplus_adjoint(begin, end, rows, dy_RE, x_RE, bias_E, dx_RE, d_bias_IE):
    zero, one, high = x_RE.dtype.type(0), x_RE.dtype.type(1), x_RE.dtype.type(20)
    for item in range(begin, end):
        d_bias_E = d_bias_IE[item]
        for r in range(item * rows, min((item + 1) * rows, len(x_RE))):
            dy_E, x_E, dx_E = dy_RE[r], x_RE[r], dx_RE[r]
            for e in range(len(bias_E)):
                x = x_E[e] + bias_E[e]
                slope = one if x > high else _sigmoid(x, zero, one)
                dx = dy_E[e] * slope
                dx_E[e] = dx
                d_bias_E[e] += dx


@njit(**INNER)
def _inverse_rms(x_D, eps):
    real = x_D.dtype.type
    total = real(0)
    for d in range(len(x_D)):
        total += x_D[d] * x_D[d]
    return real(1) / np.sqrt(total / real(len(x_D)) + real(eps))


@njit(cache=True, **FAST)
def rms_norm(begin, end, rows, eps, x_RD, weight_D, y_RD):
    for item in range(begin, end):
        for r in range(item * rows, min((item + 1) * rows, len(x_RD))):
            x_D, y_D = x_RD[r], y_RD[r]
            inverse = _inverse_rms(x_D, eps)
            for d in range(len(weight_D)):
                y_D[d] = x_D[d] * inverse * weight_D[d]


@njit(cache=True, **FAST)
def rms_norm_adjoint(begin, end, rows, eps, x_RD, weight_D, dy_RD, dx_RD, d_weight_ID):
    real = x_RD.dtype.type
    for item in range(begin, end):
        d_weight_D = d_weight_ID[item]
        for r in range(item * rows, min((item + 1) * rows, len(x_RD))):
            x_D, dy_D, dx_D = x_RD[r], dy_RD[r], dx_RD[r]
            inverse = _inverse_rms(x_D, eps)
            along = real(0)
            for d in range(len(weight_D)):
                along += dy_D[d] * weight_D[d] * x_D[d]
            along *= inverse * inverse / real(len(weight_D))
            for d in range(len(weight_D)):
                dx_D[d] = inverse * (dy_D[d] * weight_D[d] - x_D[d] * along)
            for d in range(len(weight_D)):
                d_weight_D[d] += dy_D[d] * (x_D[d] * inverse)


# ---- group normalisation: row r is group r % G of an example, S numbers with parameters of their own ------------------


@njit(**INNER)
def _statistics(x_S, eps):
    """Mean and inverse standard deviation."""
    real = x_S.dtype.type
    total, square = real(0), real(0)
    for s in range(len(x_S)):
        total += x_S[s]
    mean = total / real(len(x_S))
    for s in range(len(x_S)):
        square += (x_S[s] - mean) * (x_S[s] - mean)
    return mean, real(1) / np.sqrt(square / real(len(x_S)) + real(eps))


@njit(cache=True, **FAST)
def group_norm(begin, end, rows, eps, x_RS, weight_GS, bias_GS, y_RS):
    for item in range(begin, end):
        for r in range(item * rows, min((item + 1) * rows, len(x_RS))):
            x_S, y_S, weight_S, bias_S = x_RS[r], y_RS[r], weight_GS[r % len(weight_GS)], bias_GS[r % len(bias_GS)]
            mean, inverse = _statistics(x_S, eps)
            for s in range(len(x_S)):
                y_S[s] = (x_S[s] - mean) * inverse * weight_S[s] + bias_S[s]


@njit(cache=True, **FAST)
def group_norm_adjoint(begin, end, rows, eps, x_RS, weight_GS, dy_RS, dx_RS, d_weight_IGS, d_bias_IGS):
    real = x_RS.dtype.type
    zero = real(0)
    for item in range(begin, end):
        for r in range(item * rows, min((item + 1) * rows, len(x_RS))):
            x_S, dy_S, dx_S, g = x_RS[r], dy_RS[r], dx_RS[r], r % len(weight_GS)
            weight_S, d_weight_S, d_bias_S = weight_GS[g], d_weight_IGS[item, g], d_bias_IGS[item, g]
            mean, inverse = _statistics(x_S, eps)
            level, along = zero, zero  # mean gradient of the normalised numbers, and of its products with them
            for s in range(len(x_S)):
                normal = (x_S[s] - mean) * inverse
                d_bias_S[s] += dy_S[s]
                d_weight_S[s] += dy_S[s] * normal
                d_normal = dy_S[s] * weight_S[s]
                dx_S[s] = d_normal
                level += d_normal
                along += d_normal * normal
            level /= real(len(x_S))
            along *= inverse / real(len(x_S))
            for s in range(len(x_S)):
                dx_S[s] = inverse * (dx_S[s] - level - (x_S[s] - mean) * along)
