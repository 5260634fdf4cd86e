"""Convolutions, compiled by numba to explicit vectors: those of the encoder with the group normalisation before them, and those of a
stream with the SiLU behind them.

Legend: B images, H x W pixels of C channels go in, h x w pixels of O channels come out, I items of work. Y x X numbers are those of
an image with its zeros, K those of a row of a patch, M those of an image that goes in, N those of one that comes out.

Images lie pixel after pixel, each with its channels. A pixel of the output is then a product: of three rows of a patch, in each of
which 3 C numbers follow each other, with the filters. All that is computed here is such products, and all are one loop: a tile of
ROWS x one or two vectors of sums stays in registers, to which each turn adds a column of the first factor times a row of the second. Rows
are images for outputs and for gradients of images, and numbers of a patch for gradients of filters. Some images are in the cache at
once, with zeros around them; normalised numbers are never in memory.

A stream's tokens are taken some at a time, and of those a vector of channels. B is episodes there, L tokens, E channels, P inputs before
the stream, W = P + 1 the filter's width.

Sums over several images are kept apart by item, which depends on shapes alone: results have equal bits for any number of threads.

Everything numba compiles here is in this file: its cache does not notice changes of files imported there.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as typed_intrinsic
from numba.extending import lower_builtin, models, register_model

ROWS = 8  # of a tile, and images that are in the cache at once
LANES = 16  # channels of a vector
GROUP = 8  # channels that are normalised together
FILTER = 3  # rows of a filter, and columns
LINE = 64  # bytes that a cache fetches together
TOKENS = 16  # of a stream, which are in the cache at once

# No flag lets the compiler assume away NaN or infinity. All functions within others are inlined by force, as in scan/kernels.py.
FAST: dict[str, Any] = {"error_model": "numpy", "nogil": True}
INNER: dict[str, Any] = FAST | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}

intrinsic = cast(Callable[[Callable[..., Any]], Any], typed_intrinsic)  # callers give no typing context


# ---- vectors of channels: LLVM cuts them into registers, and knows how on every processor ----------------------------


class Vector(types.Type):
    """LANES numbers."""

    def __init__(self, real: types.Float) -> None:
        self.real = real
        super().__init__(f"Channels({real})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.real).get_value_type(), LANES))


def _place(context, builder, kind, array, index):
    """Address of the vector at this index of an array of numbers, and its alignment."""
    vector = ir.VectorType(context.get_value_type(kind.dtype), LANES)
    address = builder.gep(context.make_array(kind)(context, builder, array).data, [index])
    return builder.bitcast(address, vector.as_pointer()), kind.dtype.bitwidth // 8


def _spread(builder, number):
    lane = builder.insert_element(ir.VectorType(number.type, 1)(ir.Undefined), number, ir.IntType(32)(0))
    return _shuffle(builder, lane, [0] * LANES)


def _shuffle(builder, x, lanes):
    return builder.shuffle_vector(x, x, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


def _multiply_add(builder, x, y, total):
    return builder.fadd(total, builder.fmul(x, y, flags=("contract",)), flags=("contract",))


@intrinsic
def load(typing_context, array, index):
    def generate(context, builder, signature, arguments):
        place, align = _place(context, builder, array, *arguments)
        return builder.load(place, align=align)

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, vector):
    def generate(context, builder, signature, arguments):
        place, align = _place(context, builder, array, *arguments[:2])
        builder.store(arguments[2], place, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Begin to fetch what is at this index into the second level of the cache. The index may lie outside."""

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        place = builder.bitcast(_place(context, builder, array, *arguments)[0], ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, word(0), word(2), word(1)])  # to read, into the second level, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def spread(typing_context, array, number):
    """A vector that has this number everywhere, in the precision of the array."""
    return Vector(array.dtype)(array, array.dtype), lambda context, builder, _, values: _spread(builder, values[1])


@intrinsic
def where_positive(typing_context, x, y):
    """y where x > 0 (or is none), 0 elsewhere."""

    def generate(context, builder, signature, arguments):
        zero = ir.Constant(arguments[0].type, [0.0] * LANES)
        return builder.select(builder.fcmp_ordered("<=", arguments[0], zero), zero, arguments[1])

    return x(x, x), generate


@intrinsic
def group_sums(typing_context, x):
    """Each number becomes the sum of those of its group."""

    def generate(context, builder, signature, arguments):
        (x,) = arguments
        for distance in (4, 2, 1):
            x = builder.fadd(x, _shuffle(builder, x, [lane ^ distance for lane in range(LANES)]))
        return x

    return x(x), generate


@intrinsic
def root(typing_context, x):
    def generate(context, builder, signature, arguments):
        (values,) = arguments
        name, kind = f"llvm.sqrt.v{LANES}f{x.real.bitwidth}", ir.FunctionType(values.type, [values.type])
        return builder.call(builder.module.declare_intrinsic(name, (), kind), [values])

    return x(x), generate


# Of 2**x on [-1/2, 1/2], as in scan/kernels.py. The shift's sum with x holds the rounded x in its low bits.
_EXP2 = [1, 0.693146824836731, 0.24022236466407776, 0.05550900101661682, 0.009671780280768871, 0.001322291325777769]
_SHIFT, _MANTISSA, _LEAST = 1.5 * 2.0**23, 23, -126


@intrinsic
def sigmoid(typing_context, x):
    """1 / (1 + exp(-x)). In float32 exp(-|x|) is 0 from 88 on."""

    def constant(kind, value):
        return ir.Constant(kind, [value] * LANES)

    def exp_of_float32(builder, x):
        bits = ir.VectorType(ir.IntType(32), LANES)
        log2e, shift = constant(x.type, math.log2(math.e)), constant(x.type, _SHIFT)
        rounded = _multiply_add(builder, x, log2e, shift)
        n = builder.fsub(rounded, shift)
        r = _multiply_add(builder, x, log2e, builder.fneg(n))
        p = constant(x.type, _EXP2[-1])
        for coefficient in _EXP2[-2::-1]:
            p = _multiply_add(builder, p, r, constant(x.type, float(coefficient)))
        power = builder.shl(builder.bitcast(rounded, bits), constant(bits, _MANTISSA))
        p = builder.bitcast(builder.add(builder.bitcast(p, bits), power), x.type)
        return builder.select(builder.fcmp_ordered("<", n, constant(x.type, float(_LEAST))), constant(x.type, 0.0), p)

    def generate(context, builder, signature, arguments):
        (values,) = arguments
        kind, zero, one = values.type, constant(values.type, 0.0), constant(values.type, 1.0)
        below = builder.fcmp_ordered("<", values, zero)
        distance = builder.select(below, values, builder.fneg(values))  # -|x|, or NaN
        if x.real.bitwidth == 32:
            e = exp_of_float32(builder, distance)
        else:
            name = f"llvm.exp.v{LANES}f64"
            e = builder.call(builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind])), [distance])
        return builder.fdiv(builder.select(below, e, one), builder.fadd(one, e))

    return x(x), generate


def _define(function: Any, instruction: str) -> None:
    """Of two vectors. A product and a sum after it may become one instruction."""

    class Template(AbstractTemplate):
        def generic(self, args, kws):
            return signature(args[0], *args) if all(isinstance(kind, Vector) for kind in args) else None

    def generate(context, builder, signature, arguments):
        return getattr(builder, instruction)(*arguments, flags=("contract",))

    register: Any = infer_global(function)
    register(Template)
    lower_builtin(function, Vector, Vector)(generate)


for _function, _instruction in (
    (operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul"), (operator.truediv, "fdiv"),
):  # fmt: skip
    _define(_function, _instruction)


# ---- products --------------------------------------------------------------------------------------------------------


def _tile(rows: int, vectors: int) -> Any:
    """The product of `rows` x K numbers with K x (`vectors` vectors), whose sums stay in registers."""

    @intrinsic
    def tile(typing_context, a, a_first, a_row, b, b_first, loops, c, c_first, c_row, more):
        """Of a, from a_first on with rows a_row apart, and b, into c, where rows are c_row apart; added to it if there is `more`.

        loops: count, step in a and step in b of each loop over K, the outermost first.
        """

        def generate(context, builder, signature, arguments):
            a_array, a_first, a_row, b_array, b_first, levels, c_array, c_first, c_row, more = arguments
            word = c_first.type
            starts = [context.make_array(a)(context, builder, a_array).data]
            places, (_, align) = [], _place(context, builder, c, c_array, c_first)
            for row in range(rows):
                if row:
                    starts.append(builder.gep(starts[-1], [a_row]))
                    c_first = builder.add(c_first, c_row)
                for vector in range(vectors):
                    at = builder.add(c_first, word(vector * LANES))
                    places.append(_place(context, builder, c, c_array, at)[0])

            def multiply(a_at, b_at, sums):
                factors = []
                for vector in range(vectors):
                    at = builder.add(b_at, word(vector * LANES))
                    factors.append(builder.load(_place(context, builder, b, b_array, at)[0], align=align))
                numbers = [_spread(builder, builder.load(builder.gep(start, [a_at]), align=align)) for start in starts]
                pairs = [(number, factor) for number in numbers for factor in factors]
                return [_multiply_add(builder, *pair, total) for pair, total in zip(pairs, sums, strict=True)]

            def nest(level, a_at, b_at, sums):
                if level == len(loops):
                    return multiply(a_at, b_at, sums)
                count, a_step, b_step = (
                    builder.extract_value(builder.extract_value(levels, level), field) for field in range(3)
                )
                before = builder.block
                head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
                builder.branch(head)
                builder.position_at_end(head)
                start = [word(0), a_at, b_at, *sums]
                now = [builder.phi(value.type) for value in start]
                builder.cbranch(builder.icmp_signed("<", now[0], count), body, after)
                builder.position_at_end(body)
                added = nest(level + 1, now[1], now[2], now[3:])
                steps = [builder.add(x, step) for x, step in zip(now, (word(1), a_step, b_step), strict=False)]
                for value, first, following in zip(now, start, [*steps, *added], strict=True):
                    value.add_incoming(first, before)
                    value.add_incoming(following, builder.block)
                builder.branch(head)
                builder.position_at_end(after)
                return now[3:]

            zero = ir.Constant(places[0].type.pointee, [0.0] * LANES)
            sums = [builder.select(more, builder.load(place, align=align), zero) for place in places]
            for place, total in zip(places, nest(0, a_first, b_first, sums), strict=True):
                builder.store(total, place, align=align)
            return context.get_dummy_value()

        index = types.intp
        levels = types.UniTuple(types.UniTuple(index, 3), len(loops))
        return types.void(a, index, index, b, index, levels, c, index, index, types.boolean), generate

    return tile


_wide, _narrow, _low = _tile(ROWS, 2), _tile(ROWS, 1), _tile(FILTER, 1)


@njit(**INNER)
def _fetch(x, first, count, part, parts):
    """Begin to fetch one of so many parts of `count` numbers, which will be needed when all have been asked for."""
    for n in range(first + count * part // parts, first + count * (part + 1) // parts, LINE // x.itemsize):
        prefetch(x, n)


@njit(**INNER)
def _multiply(a, a_first, a_row, b, b_first, loops, c, c_first, c_row, columns, more):
    """A tile of ROWS rows and as many columns as there are."""
    pairs = columns // (2 * LANES) * (2 * LANES)
    for n in range(0, pairs, 2 * LANES):
        _wide(a, a_first, a_row, b, b_first + n, loops, c, c_first + n, c_row, more)
    if pairs < columns:
        _narrow(a, a_first, a_row, b, b_first + pairs, loops, c, c_first + pairs, c_row, more)


# ---- normalisation, of LANES channels of an image --------------------------------------------------------------------


@njit(**INNER)
def _group_sum(x, first, C, pixels, about, squares):
    """Over the pixels of a group, of numbers or of the squares of their distances from a vector."""
    sums = odd = about - about
    p = first
    for _ in range(pixels // 2):  # two sums, each of which waits for its own last addition
        left, right = load(x, p) - about, load(x, p + C) - about
        if squares:
            left, right = left * left, right * right
        sums, odd = sums + left, odd + right
        p += 2 * C
    if pixels % 2:
        left = load(x, p) - about
        sums = sums + (left * left if squares else left)
    return group_sums(sums + odd)


@njit(**INNER)
def _fill(x_BHWC, i, eps, scale_C, bias_C, moments, image_YX):
    """The image i, normalised and rectified if there are scales, in the midst of zeros. Notes means and deviations' inverses."""
    _, H, W, C = x_BHWC.shape
    real = x_BHWC.dtype.type
    if len(scale_C) == 0:
        for y in range(H):
            x_N, image_N = x_BHWC[i, y].reshape(-1), image_YX[y + 1, C:]
            for n in range(W * C):
                image_N[n] = x_N[n]
        return
    x, image, X = x_BHWC.reshape(-1), image_YX.reshape(-1), image_YX.shape[1]
    zero, one, count = spread(x, real(0)), spread(x, real(1)), spread(x, real(GROUP * H * W))
    for c in range(0, C, LANES):
        first = i * H * W * C + c
        mean = _group_sum(x, first, C, H * W, zero, False) / count
        variance = _group_sum(x, first, C, H * W, mean, True) / count
        inverse = one / root(variance + spread(x, real(eps)))
        store(moments, c, mean)
        store(moments, C + c, inverse)
        slope, bias = inverse * load(scale_C, c), load(bias_C, c)
        for y in range(H):
            at, to = first + y * W * C, (y + 1) * X + C + c
            for _ in range(W):
                normal = (load(x, at) - mean) * slope + bias
                store(image, to, where_positive(normal, normal))
                at += C
                to += C


# ---- the convolution, 3 x 3 with stride 2 and a pixel of zeros around, and its adjoint -------------------------------


@njit(cache=True, **FAST)
def conv(begin, end, eps, x_BHWC, scale_C, bias_C, filters, y_BhwO):
    """An item is ROWS images. filters: of 3, 3, C, O."""
    B, H, W, C = x_BHWC.shape
    _, h, w, O = y_BhwO.shape
    X, Y, M, N = (2 * w + 1) * C, 2 * h + 1, H * W * C, h * w * O
    images, moments = np.zeros((ROWS, Y, X), x_BHWC.dtype), np.empty(2 * C, x_BHWC.dtype)
    z, y = images.reshape(-1), np.empty(ROWS * N, x_BHWC.dtype)
    xs, ys = x_BHWC.reshape(-1), y_BhwO.reshape(-1)
    for item in range(begin, end):
        first, last = item * ROWS, min((item + 1) * ROWS, B)
        for i in range(first, last):
            _fill(x_BHWC, i, eps, scale_C, bias_C, moments, images[i - first])
        out, start = (ys, first * N) if last - first == ROWS else (y, 0)  # a tile writes to ROWS images
        patch = ((FILTER, X, FILTER * C * O), (FILTER * C, 1, O))
        for a in range(h):
            for b in range(w):
                _fetch(xs, last * M, ROWS * M, a * w + b, h * w)
                _multiply(z, 2 * (a * X + b * C), Y * X, filters, 0, patch, out, start + (a * w + b) * O, N, O, False)
        if last - first < ROWS:
            ys[first * N : last * N] = y[: (last - first) * N]


@njit(**INNER)
def _met(y, h):
    """Which rows of filters met row y of an image: the first, and how many, 2 apart; and the row of outputs of the first."""
    if y % 2 == 0:
        return 1, 1, y // 2
    return (0, 2, (y + 1) // 2) if y < 2 * h - 1 else (2, 1, y // 2)


@njit(cache=True, **FAST)
def conv_adjoint(
    begin, end, count, eps, x_BHWC, scale_C, bias_C, filters, dy_BhwO,
    dx_BHWC, d_scale_IC, d_bias_IC, d_filters_IF,
):  # fmt: skip
    """Fills dx, if there are scales, and adds to all others. An item is `count` images. filters: of 3, 3, O, C."""
    B, H, W, C = x_BHWC.shape
    _, h, w, O = dy_BhwO.shape
    X, Y, K, M, N = (2 * w + 1) * C, 2 * h + 1, FILTER * C, H * W * C, h * w * O
    images, moments_IM = np.zeros((ROWS, Y, X), x_BHWC.dtype), np.empty((ROWS, 2 * C), x_BHWC.dtype)
    dz_IHWC, dy = np.empty((ROWS, H, W, C), x_BHWC.dtype), np.zeros(ROWS * N, x_BHWC.dtype)
    z, dz, xs, dys = images.reshape(-1), dz_IHWC.reshape(-1), x_BHWC.reshape(-1), dy_BhwO.reshape(-1)
    for item in range(begin, end):
        d_filters = d_filters_IF[item]
        for first in range(item * count, min((item + 1) * count, B), ROWS):
            last = min(first + ROWS, (item + 1) * count, B)
            for i in range(first, last):
                _fill(x_BHWC, i, eps, scale_C, bias_C, moments_IM[i - first], images[i - first])
            if last - first < ROWS:
                dy[: (last - first) * N] = dys[first * N : last * N]
            given, start = (dys, first * N) if last - first == ROWS else (dy, 0)
            pixels = ((last - first, Y * X, N), (h, 2 * X, w * O), (w, 2 * C, O))
            for k in range(FILTER):
                for n in range(0, K, ROWS if C % ROWS == 0 else FILTER):
                    if C % ROWS == 0:
                        _multiply(z, k * X + n, 1, given, start, pixels, d_filters, (k * K + n) * O, O, O, True)
                    else:
                        for o in range(0, O, LANES):
                            _low(z, k * X + n, 1, given, start + o, pixels, d_filters, (k * K + n) * O + o, O, True)
            if len(scale_C) == 0:
                continue
            for p in range(H):
                k, rows, a = _met(p, h)
                for q in range(W):
                    m, columns, b = _met(q, w)
                    _fetch(xs, last * M, ROWS * M, p * W + q, H * W)
                    _fetch(dys, last * N, ROWS * N, p * W + q, H * W)
                    outputs = (rows, -w * O, 2 * FILTER * O * C), (columns, -O, 2 * O * C), (O, 1, C)
                    output, at = start + (a * w + b) * O, (k * FILTER + m) * O * C
                    _multiply(given, output, N, filters, at, outputs, dz, (p * W + q) * C, M, C, False)
            for i in range(first, last):
                _normal_adjoint(
                    x_BHWC, i, scale_C, moments_IM[i - first], images[i - first], dz_IHWC[i - first],
                    dx_BHWC, d_scale_IC[item], d_bias_IC[item],
                )  # fmt: skip


@njit(**INNER)
def _normal_adjoint(x_BHWC, i, scale_C, moments, image_YX, dz_HWC, dx_BHWC, d_scale_C, d_bias_C):
    """Adjoint of `_fill` with scales, whose image it finds."""
    _, H, W, C = x_BHWC.shape
    x, dx, dz = x_BHWC.reshape(-1), dx_BHWC.reshape(-1), dz_HWC.reshape(-1)
    image, X = image_YX.reshape(-1), image_YX.shape[1]
    zero, share = spread(x, x.dtype.type(0)), spread(x, x.dtype.type(1 / (GROUP * H * W)))
    for c in range(0, C, LANES):
        first = i * H * W * C + c
        mean, inverse, scale = load(moments, c), load(moments, C + c), load(scale_C, c)
        d_scale = d_bias = zero
        for y in range(H):
            at, to = y * W * C, (y + 1) * X + C + c
            for _ in range(W):
                after = where_positive(load(image, to), load(dz, c + at))
                store(dz, c + at, after)
                d_bias = d_bias + after
                d_scale = d_scale + after * ((load(x, first + at) - mean) * inverse)
                at += C
                to += C
        store(d_scale_C, c, load(d_scale_C, c) + d_scale)
        store(d_bias_C, c, load(d_bias_C, c) + d_bias)
        level, along = group_sums(d_bias * scale) * share, group_sums(d_scale * scale) * share
        for at in range(0, H * W * C, C):
            normal = (load(x, first + at) - mean) * inverse
            store(dx, first + at, inverse * (load(dz, c + at) * scale - level - normal * along))


# ---- the convolution of a stream: an item is a tile of channels of an episode ----------------------------------------


@njit(**INNER)
def _rows(x, first, state, state_first, E, past, t, count, rows):
    """Put rows t to t + count of a stream that begins with its state into `rows`, of a vector of channels."""
    for r in range(count):
        row = t + r
        if row < past:
            store(rows, r * LANES, load(state, state_first + row * E))
        else:
            store(rows, r * LANES, load(x, first + (row - past) * E))


@njit(**INNER)
def _convolved(rows, t, weight, e, E, past, total):
    """`total`, and the products of the filter with `rows` from row t on."""
    for k in range(past + 1):
        total = total + load(weight, k * E + e) * load(rows, (t + k) * LANES)
    return total


@njit(cache=True, **FAST)
def short_conv(begin, end, tile, silu, x_BLE, state_BPE, weight_WE, bias_E, y_BLE):
    """E, and with it every tile, is a multiple of LANES."""
    (_, L, E), past = x_BLE.shape, state_BPE.shape[1]
    x, state, weight, y = x_BLE.reshape(-1), state_BPE.reshape(-1), weight_WE.reshape(-1), y_BLE.reshape(-1)
    rows, tiles = np.empty((past + TOKENS) * LANES, x.dtype), -(-E // tile)
    for item in range(begin, end):
        i, start = item // tiles, item % tiles * tile
        for t in range(0, L, TOKENS):
            count = min(TOKENS, L - t)
            for e in range(start, min(start + tile, E), LANES):
                first, bias = i * L * E + e, load(bias_E, e)
                _rows(x, first, state, i * past * E + e, E, past, t, past + count, rows)
                for r in range(count):
                    at = first + (t + r) * E
                    prefetch(x, at + TOKENS * E)
                    prefetch(y, at + TOKENS * E)
                    z = _convolved(rows, r, weight, e, E, past, bias)
                    store(y, at, z * sigmoid(z) if silu else z)


@njit(cache=True, **FAST)
def short_conv_adjoint(
    begin, end, tile, silu, x_BLE, state_BPE, weight_WE, bias_E, dy_BLE, d_after_BPE,
    dx_BLE, d_state_BPE, d_weight_BWE, d_bias_BE,
):  # fmt: skip
    """Fills dx and d_state, and adds to all others. The convolution before the SiLU is computed again."""
    (_, L, E), past = x_BLE.shape, state_BPE.shape[1]
    x, state, weight, dy = x_BLE.reshape(-1), state_BPE.reshape(-1), weight_WE.reshape(-1), dy_BLE.reshape(-1)
    dx, d_state, d_after = dx_BLE.reshape(-1), d_state_BPE.reshape(-1), d_after_BPE.reshape(-1)
    d_weight, d_bias = d_weight_BWE.reshape(-1), d_bias_BE.reshape(-1)
    one, tiles = spread(x, x.dtype.type(1)), -(-E // tile)
    zero = one - one
    rows = np.empty((past + TOKENS) * LANES, x.dtype)
    dz = np.empty((past + TOKENS) * LANES, x.dtype)
    kept = np.empty(past * tile, x.dtype)  # the last dz of each channel of a tile
    for item in range(begin, end):
        i, start = item // tiles, item % tiles * tile
        kept[:] = 0
        for t in range(0, L + past, TOKENS):  # of the state and the stream; no output is after the stream
            count, outputs = min(TOKENS, L + past - t), max(0, min(TOKENS, L - t))
            for e in range(start, min(start + tile, E), LANES):
                first, before, bias = i * L * E + e, i * past * E + e, load(bias_E, e)
                # Where there are no more outputs, rows would lie past the end of the stream.
                _rows(x, first, state, before, E, past, t, past + outputs if outputs else 0, rows)
                for p in range(past):
                    store(dz, p * LANES, load(kept, p * tile + e - start))
                total = load(d_bias, i * E + e)
                for r in range(count):
                    at, here = first + (t + r) * E, zero
                    prefetch(x, at + TOKENS * E)
                    prefetch(dy, at + TOKENS * E)
                    prefetch(dx, at + TOKENS * E)
                    if r < outputs:
                        here = load(dy, at)
                        if silu:
                            z = _convolved(rows, r, weight, e, E, past, bias)
                            s = sigmoid(z)
                            here = here * (s * (one + z * (one - s)))
                    store(dz, (past + r) * LANES, here)
                    total = total + here
                store(d_bias, i * E + e, total)
                for k in range(past + 1):
                    at = (i * (past + 1) + k) * E + e
                    total = load(d_weight, at)
                    for r in range(outputs):
                        total = total + load(dz, (past + r) * LANES) * load(rows, (r + k) * LANES)
                    store(d_weight, at, total)
                for r in range(count):
                    total = load(d_after, before + (t + r - L) * E) if t + r >= L else zero
                    for k in range(past + 1):
                        total = total + load(weight, k * E + e) * load(dz, (past + r - k) * LANES)
                    if t + r < past:
                        store(d_state, before + (t + r) * E, total)
                    else:
                        store(dx, first + (t + r - past) * E, total)
                for p in range(past):
                    store(kept, p * tile + e - start, load(dz, (count + p) * LANES))
