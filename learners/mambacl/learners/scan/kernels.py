"""Fused loops of the selective scan, of the selective read and of their adjoints, compiled by numba to explicit vectors.

Legend: B episodes, L tokens (or queries), E inner width, V vectors of channels (of as many as a register holds) that make it
up, N state size, K chunks of tokens, G groups of tiles. Arrays hold whole vectors and whole blocks of the state.

Work is cut into tiles of TILE vectors of one episode, tokens into chunks and the state into blocks. The innermost loop runs
over the tokens of a chunk, for one vector of channels and one block of the state, both of which stay in registers: what is
read and written there is what tokens have. A compiler that finds vectors by itself puts all of it back to memory each time.

Backward recomputes the states of a chunk from the one saved at its start. Sums to which several tiles add (dA, dB, dC,
dD) are kept apart by episode or by group of tiles, which depend on shapes alone: results have equal bits for any number
of threads.

Everything numba compiles is in this file: its cache notices changes of a kernel's own file, not of files imported there.
It also knows the features of the processor, on which the size of a vector depends.
"""

import math
import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import njit, types
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as typed_intrinsic
from numba.extending import lower_builtin, models, register_model

TILE = 8  # vectors of channels in a tile
CHUNK = 16  # tokens between two saved states
BLOCK = 4  # entries of the state in registers

STATE, OUTPUTS, QUERIES = 0, 1, 2  # wanted: the final state alone, outputs too, or independent steps from one state

DELTA, WRITE, OUT, D_DELTA, D_WRITE = range(TOKEN := 5)
"""Vectors of a token: step size, step size x input, output or its gradient, gradients of the first two."""
RATE, H, DH, DA = range(ENTRY := 4)
"""Blocks of an entry of the state: A in units of log 2, state, gradient of the state, gradient of A."""
DECAY, BEFORE = range(STEP := 2)
"""Blocks the adjoint must know of one token: the decay, and the state before it."""
DB, DC = range(SUM := 2)
"""Blocks of one token that are summed over the vectors of a tile."""

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453

# No flag lets the compiler assume away NaN or infinity.
FAST: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# Without wrappers they compile in half the time. All are inlined by force: of a function that stays one, the process that
# compiles may run another copy than those that load the cache, with sums in another order, and so with other bits.
INNER: dict[str, Any] = FAST | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}


# ---- vectors: LLVM cuts a block into registers, and knows how on every processor -------------------------------------


def _features() -> set[str]:
    context: Any = cpu_target.target_context
    return set(context.codegen().magic_tuple()[2].split(","))


FEATURES = _features()
REGISTER = 64 if "+avx512f" in FEATURES else 32 if "+avx" in FEATURES else 16
"""Bytes."""

intrinsic = cast(Callable[[Callable[..., Any]], Any], typed_intrinsic)  # callers give no typing context


class Vector(types.Type):
    """Some rows of numbers, each as many as a register holds; a single row is one of channels, BLOCK are of a block."""

    def __init__(self, real: types.Float, rows: int) -> None:
        self.real, self.rows, self.lanes = real, rows, REGISTER * 8 // real.bitwidth
        super().__init__(f"Vector({real}, {rows})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        real = manager.lookup(vector.real).get_value_type()
        super().__init__(manager, vector, ir.VectorType(real, vector.rows * vector.lanes))


def _shuffle(builder, x, y, lanes):
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), list(lanes)))


def _stack(builder, rows):
    """A power of two of rows as one vector."""
    while len(rows) > 1:
        both = range(2 * rows[0].type.count)
        rows = [_shuffle(builder, x, y, both) for x, y in zip(rows[::2], rows[1::2], strict=True)]
    return rows[0]


def _rows(builder, x, lanes):
    return [_shuffle(builder, x, x, range(first, first + lanes)) for first in range(0, x.type.count, lanes)]


def _address(context, builder, kind, array, index, lanes=1):
    """Of the vector of so many lanes that is at this index of an array of vectors."""
    data = context.make_array(kind)(context, builder, array).data
    if lanes > 1:
        real = context.get_value_type(kind.dtype)
        data = builder.bitcast(data, ir.VectorType(real, lanes).as_pointer())
    return builder.gep(data, [index])


@intrinsic
def load(typing_context, array, index):
    """The vector of channels that is at this index of an array of vectors."""
    vector = Vector(array.dtype, 1)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, array, *arguments, lanes=vector.lanes)
        return builder.load(address, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp), generate


@intrinsic
def load_block(typing_context, array, index, stride):
    """The vectors that are at this index and at the next ones, `stride` apart."""
    vector = Vector(array.dtype, BLOCK)

    def generate(context, builder, signature, arguments):
        values, index, stride = arguments
        rows = []
        for _ in range(BLOCK):
            address = _address(context, builder, array, values, index, vector.lanes)
            rows.append(builder.load(address, align=array.dtype.bitwidth // 8))
            index = builder.add(index, stride)
        return _stack(builder, rows)

    return vector(array, types.intp, types.intp), generate


@intrinsic
def spread(typing_context, array, index):
    """The numbers that are at this index and at the next ones, each in a row of its own."""
    vector = Vector(array.dtype, BLOCK)

    def generate(context, builder, signature, arguments):
        values, index = arguments
        rows = []
        for n in range(BLOCK):
            number = builder.load(_address(context, builder, array, values, builder.add(index, index.type(n))))
            lane = ir.VectorType(number.type, 1)(ir.Undefined)
            lane = builder.insert_element(lane, number, ir.IntType(32)(0))
            rows.append(_shuffle(builder, lane, lane, [0] * vector.lanes))
        return _stack(builder, rows)

    return vector(array, types.intp), generate


@intrinsic
def store(typing_context, array, index, stride, vector):
    """Put the rows of a vector where `load_block` finds them."""

    def generate(context, builder, signature, arguments):
        values, index, stride, rows = arguments
        for row in _rows(builder, rows, vector.lanes):
            address = _address(context, builder, array, values, index, vector.lanes)
            builder.store(row, address, align=array.dtype.bitwidth // 8)
            index = builder.add(index, stride)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, vector), generate


@intrinsic
def prefetch(typing_context, array, index):
    """Begin to fetch the vector that is at this index, for it will be loaded soon. The index may lie outside."""
    lanes = Vector(array.dtype, 1).lanes

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        place = builder.bitcast(_address(context, builder, array, *arguments, lanes=lanes), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, word, word, word])
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(function, [place, word(0), word(3), word(1)])  # to read, into the first level, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def add_sums(typing_context, array, index, vector):
    """Add the sum of each row to the numbers that are at this index and at the next ones."""

    def generate(context, builder, signature, arguments):
        values, index, rows = arguments
        lanes = vector.lanes
        while lanes > 1:
            lanes //= 2
            rows = builder.fadd(_shuffled(builder, rows, lanes, 0), _shuffled(builder, rows, lanes, 1))
        address = _address(context, builder, array, values, index)
        address = builder.bitcast(address, rows.type.as_pointer())
        align = array.dtype.bitwidth // 8
        builder.store(builder.fadd(builder.load(address, align=align), rows), address, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


def _shuffled(builder, rows, lanes, half):
    """This half of each row; halves are of so many lanes."""
    first = range(half * lanes, rows.type.count, 2 * lanes)
    return _shuffle(builder, rows, rows, [lane for start in first for lane in range(start, start + lanes)])


@intrinsic
def row(typing_context, array, number):
    """A vector of channels that all have this number, in the precision of the array."""
    vector = Vector(array.dtype, 1)

    def generate(context, builder, signature, arguments):
        lane = ir.VectorType(arguments[1].type, 1)(ir.Undefined)
        lane = builder.insert_element(lane, arguments[1], ir.IntType(32)(0))
        return _shuffle(builder, lane, lane, [0] * vector.lanes)

    return vector(array, array.dtype), generate


def _alike(builder, vectors, values):
    """Two vectors with as many rows as the larger one has."""
    rows = max(vector.rows for vector in vectors)
    return [_stack(builder, [x] * (rows // v.rows)) for v, x in zip(vectors, values, strict=True)]


def _define(function: Any, instruction: str) -> None:
    """Of two vectors, with numpy's broadcasting. A product and a sum after it may become one instruction."""

    class Template(AbstractTemplate):
        def generic(self, args, kws):
            if all(isinstance(kind, Vector) for kind in args):
                return signature(max(args, key=lambda vector: vector.rows), *args)
            return None

    def generate(context, builder, signature, arguments):
        x, y = _alike(builder, signature.args, arguments)
        return getattr(builder, instruction)(x, y, flags=("contract",))

    register: Any = infer_global(function)
    register(Template)
    lower_builtin(function, Vector, Vector)(generate)


_define(operator.add, "fadd")
_define(operator.mul, "fmul")


@intrinsic
def add_dot(typing_context, total, x, y):
    """total + the sum of x y over rows, one after another."""

    def generate(context, builder, signature, arguments):
        total, *factors = arguments
        x, y = _alike(builder, signature.args[1:], factors)
        for a, b in zip(*(_rows(builder, factor, total.type.count) for factor in (x, y)), strict=True):
            total = builder.fadd(total, builder.fmul(a, b, flags=("contract",)), flags=("contract",))
        return total

    return total(total, x, y), generate


# The shift's sum with x holds the rounded x in its low bits. float32: minimax error in units in the last place on
# [-1/2, 1/2], with value 1 at 0, so that whole numbers come out exact. float64: Taylor's series.
_EXP2 = {
    32: (ir.IntType(32), 23, [1, 0.693146824836731, 0.24022236466407776, 0.05550900101661682, 0.009671780280768871,
         0.001322291325777769]),
    64: (ir.IntType(64), 52, [LN2**k / math.factorial(k) for k in range(14)]),
}  # fmt: skip


@intrinsic
def exp2(typing_context, x):
    """2**x of a number or a vector. It errs by up to 1.8 units in the last place, or 2.1 where the processor has no fused
    multiply-adds; in float32 it is 0 up to -127 and inf from 128 on, in float64 0 up to -1023 and inf from 1024 on."""
    bits = x.real.bitwidth if isinstance(x, Vector) else x.bitwidth
    whole, mantissa, coefficients = _EXP2[bits]
    high = 1 << (bits - mantissa - 2)

    def constant(kind, value):
        return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)

    def polynomial(builder, r):
        p = constant(r.type, float(coefficients[-1]))
        for c in coefficients[-2::-1]:
            p = builder.fadd(builder.fmul(p, r, flags=("contract",)), constant(r.type, float(c)), flags=("contract",))
        return p

    def by_bits(builder, x):
        """Puts the whole part into the exponent's bits. A comparison with NaN is false: NaN passes."""
        integer = ir.VectorType(whole, x.type.count) if isinstance(x.type, ir.VectorType) else whole
        for comparison, limit in (("<", high), (">", 1 - high)):
            limit = constant(x.type, float(limit))
            x = builder.select(builder.fcmp_ordered(comparison, limit, x), limit, x)
        shift = constant(x.type, 1.5 * 2.0**mantissa)
        rounded = builder.fadd(x, shift)
        p = polynomial(builder, builder.fsub(x, builder.fsub(rounded, shift)))
        power = builder.shl(builder.bitcast(rounded, integer), constant(integer, mantissa))
        return builder.bitcast(builder.add(builder.bitcast(p, integer), power), x.type)

    def by_avx512(builder, x):
        """The same bits: AVX-512 has instructions that split a number and that scale one."""
        control, mask, zero = ir.IntType(32), ir.IntType(x.type.count), constant(x.type, 0.0)

        def call(name, *values, where):
            """Zero elsewhere. Rounding is in the mode that is set."""
            values = (*values, zero, where, control(4))
            kind = ir.FunctionType(x.type, [value.type for value in values])
            name = f"llvm.x86.avx512.mask.{name}.p{'s' if bits == 32 else 'd'}.512"
            return builder.call(builder.module.declare_intrinsic(name, (), kind), values)

        nearest = control(8)
        n, r = (call(name, x, nearest, where=mask(-1)) for name in ("rndscale", "reduce"))
        above = builder.fcmp_unordered(">", x, constant(x.type, float(1 - high)))  # or NaN
        return call("scalef", polynomial(builder, r), n, where=builder.bitcast(above, mask))

    def generate(context, builder, signature, arguments):
        (values,) = arguments
        if isinstance(x, Vector) and {"+avx512f", "+avx512dq"} <= FEATURES:
            return _stack(builder, [by_avx512(builder, row) for row in _rows(builder, values, x.lanes)])
        return by_bits(builder, values)

    return x(x), generate


# ---- loops over a chunk of tokens, for one vector v of a tile and a block of the state from n on --------------------


@njit(**INNER)
def _advance(tokens, entries, steps, B_BLN, C_BLN, moves, v, n, first, length, N):
    """Recurrence: moves h, adds to `out` if C is given, notes decays and earlier states if `steps` is given.

    moves: None for independent steps from one state, which h is left at.
    """
    entry = (v * N + n) * ENTRY
    rate = load_block(entries, entry + RATE * BLOCK, 1)
    h = load_block(entries, entry + H * BLOCK, 1)
    for t in range(length):
        token, place, step = (v * CHUNK + t) * TOKEN, (first + t) * N + n, t * STEP * BLOCK
        decay = exp2(load(tokens, token + DELTA) * rate)
        after = decay * h + load(tokens, token + WRITE) * spread(B_BLN, place)
        if C_BLN is not None:
            out = add_dot(load(tokens, token + OUT), spread(C_BLN, place), after)
            store(tokens, token + OUT, 0, out)
        if steps is not None:
            store(steps, step + DECAY * BLOCK, 1, decay)
            store(steps, step + BEFORE * BLOCK, 1, h)
        if moves is not None:
            h = after
    if steps is not None:
        store(steps, (length * STEP + BEFORE) * BLOCK, 1, h)
    elif moves is not None:
        store(entries, entry + H * BLOCK, 1, h)


@njit(**INNER)
def _retreat(tokens, entries, steps, sums, B_BLN, C_BLN, v, n, first, length, N):
    """Adjoint of `_advance`: finds the outputs' gradient in `out`, moves dh back by a chunk, adds to all others."""
    entry = (v * N + n) * ENTRY
    rate = load_block(entries, entry + RATE * BLOCK, 1)
    dh = load_block(entries, entry + DH * BLOCK, 1)
    dA = load_block(entries, entry + DA * BLOCK, 1)
    after = load_block(steps, (length * STEP + BEFORE) * BLOCK, 1)
    for t in range(length - 1, -1, -1):
        token, place, step = (v * CHUNK + t) * TOKEN, (first + t) * N + n, t * STEP * BLOCK
        sum_ = t * SUM * BLOCK
        if C_BLN is not None:
            dy = load(tokens, token + OUT)
            dh = dh + spread(C_BLN, place) * dy
            store(sums, sum_ + DC * BLOCK, 1, load_block(sums, sum_ + DC * BLOCK, 1) + after * dy)
        store(sums, sum_ + DB * BLOCK, 1, load_block(sums, sum_ + DB * BLOCK, 1) + dh * load(tokens, token + WRITE))
        store(tokens, token + D_WRITE, 0, add_dot(load(tokens, token + D_WRITE), dh, spread(B_BLN, place)))
        dh = dh * load_block(steps, step + DECAY * BLOCK, 1)
        after = load_block(steps, step + BEFORE * BLOCK, 1)
        d_exponent = dh * after
        store(tokens, token + D_DELTA, 0, add_dot(load(tokens, token + D_DELTA), d_exponent, rate))
        dA = dA + d_exponent * load(tokens, token + DELTA)
    store(entries, entry + DH * BLOCK, 1, dh)
    store(entries, entry + DA * BLOCK, 1, dA)


@njit(**INNER)
def _ask_adjoint(tokens, entries, sums, B_BLN, C_BLN, v, n, first, length, N):
    """Adjoint of independent steps: finds the outputs' gradient in `out`, adds to all others."""
    entry = (v * N + n) * ENTRY
    rate = load_block(entries, entry + RATE * BLOCK, 1)
    h = load_block(entries, entry + H * BLOCK, 1)
    dh = load_block(entries, entry + DH * BLOCK, 1)
    dA = load_block(entries, entry + DA * BLOCK, 1)
    for t in range(length):
        token, place, sum_ = (v * CHUNK + t) * TOKEN, (first + t) * N + n, t * SUM * BLOCK
        delta, write, dy = load(tokens, token + DELTA), load(tokens, token + WRITE), load(tokens, token + OUT)
        b, d_after = spread(B_BLN, place), spread(C_BLN, place) * dy
        decay = exp2(delta * rate)
        after = decay * h + write * b
        store(sums, sum_ + DC * BLOCK, 1, load_block(sums, sum_ + DC * BLOCK, 1) + after * dy)
        store(sums, sum_ + DB * BLOCK, 1, load_block(sums, sum_ + DB * BLOCK, 1) + d_after * write)
        store(tokens, token + D_WRITE, 0, add_dot(load(tokens, token + D_WRITE), d_after, b))
        before = d_after * decay
        dh = dh + before
        d_exponent = before * h
        store(tokens, token + D_DELTA, 0, add_dot(load(tokens, token + D_DELTA), d_exponent, rate))
        dA = dA + d_exponent * delta
    store(entries, entry + DH * BLOCK, 1, dh)
    store(entries, entry + DA * BLOCK, 1, dA)


# ---- between arrays and workspaces, for a tile of some vectors from `start` on --------------------------------------


@njit(**INNER)
def _load_entries(entries, field, x, first, stride, vectors, N):
    """Of an array that holds vector `first` + v of the tile at state 0 and the next states `stride` apart."""
    for v in range(vectors):
        for n in range(0, N, BLOCK):
            block = load_block(x, first + n * stride + v, stride)
            store(entries, (v * N + n) * ENTRY + field * BLOCK, 1, block)


@njit(**INNER)
def _store_entries(entries, field, x, first, stride, vectors, N):
    for v in range(vectors):
        for n in range(0, N, BLOCK):
            block = load_block(entries, (v * N + n) * ENTRY + field * BLOCK, 1)
            store(x, first + n * stride + v, stride, block)


@njit(**INNER)
def _load_tokens(tokens, u, delta, D, dy, first, start, stride, vectors, length):
    """`out` begins at D u if D is given, is the outputs' gradient if dy is given, and zero otherwise."""
    zero = row(u, u.dtype.type(0))
    for t in range(length):
        for v in range(vectors):
            place, token = (first + t) * stride + start + v, (v * CHUNK + t) * TOKEN
            step, value = load(delta, place), load(u, place)
            store(tokens, token + DELTA, 0, step)
            store(tokens, token + WRITE, 0, step * value)
            if D is not None:
                store(tokens, token + OUT, 0, load(D, start + v) * value)
            else:
                store(tokens, token + OUT, 0, zero if dy is None else load(dy, place))
                store(tokens, token + D_DELTA, 0, zero)
                store(tokens, token + D_WRITE, 0, zero)


@njit(**INNER)
def _prefetch(x, first, v, stride, n, N):
    """Vector v of some tokens of a chunk: as n goes through the blocks of the state, of all tokens. Memory takes about as
    long as the work on a chunk, and would not keep up with a request for all of it at once."""
    for t in range(n * CHUNK // N, (n + BLOCK) * CHUNK // N):
        prefetch(x, (first + t) * stride + v)


@njit(**INNER)
def _store_y(tokens, y, first, start, stride, vectors, length):
    for t in range(length):
        for v in range(vectors):
            store(y, (first + t) * stride + start + v, 0, load(tokens, (v * CHUNK + t) * TOKEN + OUT))


@njit(**INNER)
def _store_gradients_of_tokens(tokens, u, D, du, ddelta, dD, dD_first, first, start, stride, vectors, length):
    ln2 = row(u, u.dtype.type(LN2))
    for t in range(length):
        for v in range(vectors):
            place, token, sum_ = (first + t) * stride + start + v, (v * CHUNK + t) * TOKEN, dD_first + v
            value, dy, d_write = load(u, place), load(tokens, token + OUT), load(tokens, token + D_WRITE)
            store(du, place, 0, d_write * load(tokens, token + DELTA) + dy * load(D, start + v))
            store(ddelta, place, 0, d_write * value + load(tokens, token + D_DELTA) * ln2)
            store(dD, sum_, 0, load(dD, sum_) + dy * value)


# ---- the two kernels; a call does the tiles, or groups of tiles, from `begin` to `end` -------------------------------


@njit(cache=True, **FAST)
def forward(begin, end, want, tokens, entries, u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE):
    """Moves h from the beginning to the end; fills y unless STATE is wanted, and h before each chunk if K > 0."""
    (_, L, _), V = u_BLE.shape, u_BLE.shape[2] * u_BLE.itemsize // REGISTER
    N, K, tiles = len(rate_NE), h_BKNE.shape[1], -(-V // TILE)
    for item in range(begin, end):
        i, start = item // tiles, item % tiles * TILE
        vectors = min(TILE, V - start)
        _load_entries(entries, RATE, rate_NE, start, V, vectors, N)
        _load_entries(entries, H, h_BNE, i * N * V + start, V, vectors, N)
        for t in range(0, L, CHUNK):
            first, length = i * L + t, min(CHUNK, L - t)
            _load_tokens(tokens, u_BLE, delta_BLE, D_E, None, first, start, V, vectors, length)
            if K > 0:
                _store_entries(entries, H, h_BKNE, (i * K + t // CHUNK) * N * V + start, V, vectors, N)
            for v in range(vectors):
                for n in range(0, N, BLOCK):
                    _prefetch(u_BLE, first + CHUNK, start + v, V, n, N)
                    _prefetch(delta_BLE, first + CHUNK, start + v, V, n, N)
                    if want != STATE:
                        _prefetch(y_BLE, first, start + v, V, n, N)
                    if want == STATE:
                        _advance(tokens, entries, None, B_BLN, None, True, v, n, first, length, N)
                    elif want == OUTPUTS:
                        _advance(tokens, entries, None, B_BLN, C_BLN, True, v, n, first, length, N)
                    else:
                        _advance(tokens, entries, None, B_BLN, C_BLN, None, v, n, first, length, N)
            if want != STATE:
                _store_y(tokens, y_BLE, first, start, V, vectors, length)
        if want != QUERIES:
            _store_entries(entries, H, h_BNE, i * N * V + start, V, vectors, N)


@njit(cache=True, **FAST)
def backward(
    begin, end, want, tokens, entries, steps, sums, u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BKNE,
    dy_BLE, du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE,
):  # fmt: skip
    """Moves dh from the end to the beginning, fills du and ddelta, adds to all else. Queries ask the state at K = 0."""
    (B, L, _), V = u_BLE.shape, u_BLE.shape[2] * u_BLE.itemsize // REGISTER
    N, K, G = len(rate_NE), h_BKNE.shape[1], len(dB_GBLN)
    group = -(-V // (TILE * G)) * TILE
    zero = row(u_BLE, u_BLE.dtype.type(0))
    for item in range(begin, end):
        i, g = item // G, item % G
        for start in range(g * group, min((g + 1) * group, V), TILE):
            vectors, state = min(TILE, V - start), i * N * V + start
            _load_entries(entries, RATE, rate_NE, start, V, vectors, N)
            _load_entries(entries, DH, dh_BNE, state, V, vectors, N)
            _load_entries(entries, DA, dA_BNE, state, V, vectors, N)
            for t in range((L - 1) // CHUNK * CHUNK, -1, -CHUNK):
                first, length, k = i * L + t, min(CHUNK, L - t), 0 if want == QUERIES else t // CHUNK
                if want == STATE:
                    _load_tokens(tokens, u_BLE, delta_BLE, None, None, first, start, V, vectors, length)
                else:
                    _load_tokens(tokens, u_BLE, delta_BLE, None, dy_BLE, first, start, V, vectors, length)
                _load_entries(entries, H, h_BKNE, (i * K + k) * N * V + start, V, vectors, N)
                for n in range(0, N, BLOCK):
                    for s in range(CHUNK * SUM * BLOCK):
                        store(sums, s, 0, zero)
                    for v in range(vectors):
                        _prefetch(u_BLE, first - CHUNK, start + v, V, n, N)
                        _prefetch(delta_BLE, first - CHUNK, start + v, V, n, N)
                        _prefetch(du_BLE, first, start + v, V, n, N)
                        _prefetch(ddelta_BLE, first, start + v, V, n, N)
                        if want != STATE:
                            _prefetch(dy_BLE, first - CHUNK, start + v, V, n, N)
                        if want != QUERIES:
                            for m in range(n, n + BLOCK):
                                prefetch(h_BKNE, ((i * K + k - 1) * N + m) * V + start + v)
                        if want == QUERIES:
                            _ask_adjoint(tokens, entries, sums, B_BLN, C_BLN, v, n, first, length, N)
                            continue
                        _advance(tokens, entries, steps, B_BLN, None, True, v, n, first, length, N)
                        if want == OUTPUTS:
                            _retreat(tokens, entries, steps, sums, B_BLN, C_BLN, v, n, first, length, N)
                        else:
                            _retreat(tokens, entries, steps, sums, B_BLN, None, v, n, first, length, N)
                    for s in range(length):
                        place = ((g * B + i) * L + t + s) * N + n
                        add_sums(dB_GBLN, place, load_block(sums, (s * SUM + DB) * BLOCK, 1))
                        add_sums(dC_GBLN, place, load_block(sums, (s * SUM + DC) * BLOCK, 1))
                _store_gradients_of_tokens(
                    tokens, u_BLE, D_E, du_BLE, ddelta_BLE, dD_BE, i * V + start, first, start, V, vectors, length
                )
            _store_entries(entries, DH, dh_BNE, state, V, vectors, N)
            _store_entries(entries, DA, dA_BNE, state, V, vectors, N)
