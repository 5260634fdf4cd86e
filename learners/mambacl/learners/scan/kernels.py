"""Fused loops of the selective scan, of the selective read and of their adjoints, compiled by numba.

Legend: B episodes, L tokens (or queries), E inner width, N state size, K chunks of tokens, G groups of tiles.

Work is cut into tiles of TILE channels of one episode, tokens into chunks and the state into blocks, so that all a tile needs
stays in the first two levels of cache. The innermost loop always runs over the TILE channels, a count known to the compiler,
and becomes straight vector code. The records below serve the same end: their fields lie at constant distances, so a loop needs
three pointers where separate arrays need thirteen and spill, which makes the adjoint 1.7 times faster.

Backward recomputes the states of a chunk from the one saved at its start. Sums to which several tiles add (dA, dB, dC, dD) are
kept apart by episode or by group of tiles, a partition that depends on shapes only: any number of threads gives equal bits.

Everything numba compiles lives in this file: numba's cache notices a change of a kernel's own file, not of files it imports.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

TILE = 64  # channels in the innermost loop: four AVX-512 registers of float32
CHUNK = 16  # tokens between two saved states
BLOCK = 16  # entries of the state taken through a chunk at once: their history is 136 KiB in float32, within the second cache

STATE, OUTPUTS, QUERIES = (
    0,
    1,
    2,
)  # what is wanted: the final state, also the outputs, or independent steps from one state

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453

# No flag lets the compiler assume that NaN or infinity never occur. `reassoc` is for sums over channels; exp2 goes without.
FAST = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy", "nogil": True}
INNER = FAST | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # halves the time it takes to compile


def token_record(real: type) -> np.dtype:
    """A token on a tile: step size, step size x input, output or its gradient, gradients of the first two."""
    return np.dtype([(name, real, (TILE,)) for name in ("delta", "write", "out", "d_delta", "d_write")])


def entry_record(real: type) -> np.dtype:
    """An entry of the state on a tile: A in units of log 2, state, gradient of the state, gradient of A."""
    return np.dtype([(name, real, (TILE,)) for name in ("rate", "h", "dh", "dA")])


def step_record(real: type) -> np.dtype:
    """What the adjoint must know of one token and one entry: the decay, and the state before it."""
    return np.dtype([(name, real, (TILE,)) for name in ("decay", "h")])


def exp2(x):
    """2**x. In float32 it vectorises: within 1.3 units in the last place, 0 from -127 down, inf from 128 up, NaN for NaN."""
    return np.exp2(x)


@overload(exp2, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp2(x):
    if x != types.float32:
        return lambda x: np.exp2(x)
    shift = np.float32(1.5 * 2**23)  # a sum with it holds the rounded x in its low bits
    low, high, c0 = np.float32(-127), np.float32(128), np.float32(1)
    # smallest relative error on [-1/2, 1/2] of all polynomials that are 1 at 0: whole numbers come out exact
    c1, c2, c3 = np.float32(0.6931469775989911), np.float32(0.2402224208537672), np.float32(0.05550733743470752)
    c4, c5 = np.float32(0.009671512639957249), np.float32(0.0013264727139960064)

    def vectorisable(x):
        x = low if x < low else x  # false for NaN, which passes both lines
        x = high if x > high else x
        rounded = np.float32(x + shift)
        r = x - (rounded - shift)
        p = np.float32(((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + c0)
        return np.int32(p.view(np.int32) + (rounded.view(np.int32) << 23)).view(np.float32)

    return vectorisable


# ---- loops over a chunk of tokens (from t0), a block of the state (from n0) and a tile of episode i ------------------


@njit(**INNER)
def _advance(tokens_L, entries_N, steps_LN, B_BLN, C_BLN, i, t0, n0):
    """Recurrence: moves h, adds to `out` if C is given, notes decays and earlier states if `steps` is given."""
    for t in range(len(tokens_L)):
        token = tokens_L[t]
        for n in range(len(entries_N)):
            entry = entries_N[n]
            b = B_BLN[i, t0 + t, n0 + n]
            c = b if C_BLN is None else C_BLN[i, t0 + t, n0 + n]
            for e in range(TILE):
                decay = exp2(token.delta[e] * entry.rate[e])
                before = entry.h[e]
                h = decay * before + token.write[e] * b
                entry.h[e] = h
                if C_BLN is not None:
                    token.out[e] += c * h
                if steps_LN is not None:
                    steps_LN[t, n].decay[e] = decay
                    steps_LN[t, n].h[e] = before
    if steps_LN is not None:
        for n in range(len(entries_N)):
            for e in range(TILE):
                steps_LN[len(tokens_L), n].h[e] = entries_N[n].h[e]


@njit(**INNER)
def _retreat(tokens_L, entries_N, steps_LN, B_BLN, C_BLN, dB_BLN, dC_BLN, i, t0, n0):
    """Adjoint of `_advance`: finds the outputs' gradient in `out`, moves dh back by a chunk, adds to the other gradients."""
    zero = B_BLN.dtype.type(0)
    for t in range(len(tokens_L) - 1, -1, -1):
        token = tokens_L[t]
        for n in range(len(entries_N)):
            entry, step, after = entries_N[n], steps_LN[t, n], steps_LN[t + 1, n]
            b = B_BLN[i, t0 + t, n0 + n]
            c = b if C_BLN is None else C_BLN[i, t0 + t, n0 + n]
            db, dc = zero, zero
            for e in range(TILE):
                dh = entry.dh[e]
                if C_BLN is not None:
                    dh += c * token.out[e]
                    dc += after.h[e] * token.out[e]
                db += dh * token.write[e]
                token.d_write[e] += dh * b
                dh *= step.decay[e]
                entry.dh[e] = dh
                d_exponent = dh * step.h[e]
                token.d_delta[e] += d_exponent * entry.rate[e]
                entry.dA[e] += d_exponent * token.delta[e]
            dB_BLN[i, t0 + t, n0 + n] += db
            if C_BLN is not None:
                dC_BLN[i, t0 + t, n0 + n] += dc


@njit(**INNER)
def _ask(tokens_L, entries_N, B_BLN, C_BLN, i, t0, n0):
    """Independent steps from one state: adds to `out`, leaves h alone."""
    for t in range(len(tokens_L)):
        token = tokens_L[t]
        match = B_BLN.dtype.type(0)
        for n in range(len(entries_N)):
            entry, c = entries_N[n], C_BLN[i, t0 + t, n0 + n]
            match += c * B_BLN[i, t0 + t, n0 + n]
            for e in range(TILE):
                token.out[e] += c * (exp2(token.delta[e] * entry.rate[e]) * entry.h[e])
        for e in range(TILE):
            token.out[e] += match * token.write[e]


@njit(**INNER)
def _ask_adjoint(tokens_L, entries_N, B_BLN, C_BLN, dB_BLN, dC_BLN, i, t0, n0):
    """Adjoint of `_ask`: finds the outputs' gradient in `out`, adds to all other gradients."""
    zero = B_BLN.dtype.type(0)
    for t in range(len(tokens_L)):
        token = tokens_L[t]
        match, d_match = zero, zero
        for n in range(len(entries_N)):
            match += C_BLN[i, t0 + t, n0 + n] * B_BLN[i, t0 + t, n0 + n]
        for e in range(TILE):
            token.d_write[e] += match * token.out[e]
            d_match += token.write[e] * token.out[e]
        for n in range(len(entries_N)):
            entry, c, dc = entries_N[n], C_BLN[i, t0 + t, n0 + n], zero
            for e in range(TILE):
                dh = exp2(token.delta[e] * entry.rate[e]) * token.out[e]
                dc += dh * entry.h[e]
                entry.dh[e] += c * dh
                d_exponent = c * (dh * entry.h[e])
                token.d_delta[e] += d_exponent * entry.rate[e]
                entry.dA[e] += d_exponent * token.delta[e]
            dB_BLN[i, t0 + t, n0 + n] += d_match * c
            dC_BLN[i, t0 + t, n0 + n] += d_match * B_BLN[i, t0 + t, n0 + n] + dc


# ---- between arrays and records; in the last tile, channels beyond E stay at rest: all zero -------------------------


@njit(**INNER)
def _load_entries(entries_N, rate_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, rate_E = entries_N[n], rate_NE[n, start : start + lanes]
        for e in range(TILE):
            entry.rate[e] = entry.h[e] = entry.dh[e] = entry.dA[e] = 0
        for e in range(lanes):
            entry.rate[e] = rate_E[e]


@njit(**INNER)
def _load_h(entries_N, h_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, h_E = entries_N[n], h_NE[n, start : start + lanes]
        for e in range(lanes):
            entry.h[e] = h_E[e]


@njit(**INNER)
def _store_h(entries_N, h_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, h_E = entries_N[n], h_NE[n, start : start + lanes]
        for e in range(lanes):
            h_E[e] = entry.h[e]


@njit(**INNER)
def _load_dh(entries_N, dh_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, dh_E = entries_N[n], dh_NE[n, start : start + lanes]
        for e in range(lanes):
            entry.dh[e] = dh_E[e]


@njit(**INNER)
def _store_dh_and_dA(entries_N, dh_NE, dA_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, dh_E, dA_E = entries_N[n], dh_NE[n, start : start + lanes], dA_NE[n, start : start + lanes]
        for e in range(lanes):
            dh_E[e] = entry.dh[e]
            dA_E[e] = entry.dA[e]


@njit(**INNER)
def _rest(tokens_L):
    for t in range(len(tokens_L)):
        token = tokens_L[t]
        for e in range(TILE):
            token.delta[e] = token.write[e] = token.out[e] = 0


@njit(**INNER)
def _load_tokens(tokens_L, u_LE, delta_LE, D_E, start, lanes):
    """With outputs that begin at D u."""
    D_E = D_E[start : start + lanes]
    for t in range(len(tokens_L)):
        token, u_E, delta_E = tokens_L[t], u_LE[t, start : start + lanes], delta_LE[t, start : start + lanes]
        for e in range(lanes):
            token.delta[e] = delta_E[e]
            token.write[e] = delta_E[e] * u_E[e]
            token.out[e] = D_E[e] * u_E[e]


@njit(**INNER)
def _load_tokens_and_dy(tokens_L, u_LE, delta_LE, dy_LE, start, lanes):
    """With outputs' gradients, and gradients that begin at zero."""
    for t in range(len(tokens_L)):
        token, u_E, delta_E = tokens_L[t], u_LE[t, start : start + lanes], delta_LE[t, start : start + lanes]
        for e in range(lanes):
            token.delta[e] = delta_E[e]
            token.write[e] = delta_E[e] * u_E[e]
            token.d_delta[e] = token.d_write[e] = 0
        if dy_LE is not None:
            dy_E = dy_LE[t, start : start + lanes]
            for e in range(lanes):
                token.out[e] = dy_E[e]


@njit(**INNER)
def _store_y(tokens_L, y_LE, start, lanes):
    for t in range(len(tokens_L)):
        token, y_E = tokens_L[t], y_LE[t, start : start + lanes]
        for e in range(lanes):
            y_E[e] = token.out[e]


@njit(**INNER)
def _store_gradients(tokens_L, u_LE, D_E, du_LE, ddelta_LE, dD_E, start, lanes):
    ln2 = D_E.dtype.type(LN2)
    D_E, dD_E = D_E[start : start + lanes], dD_E[start : start + lanes]
    for t in range(len(tokens_L)):
        token, u_E = tokens_L[t], u_LE[t, start : start + lanes]
        du_E, ddelta_E = du_LE[t, start : start + lanes], ddelta_LE[t, start : start + lanes]
        # three loops, because the compiler gives up on one with so many arrays that might overlap
        for e in range(lanes):
            du_E[e] = token.d_write[e] * token.delta[e] + token.out[e] * D_E[e]
        for e in range(lanes):
            ddelta_E[e] = token.d_write[e] * u_E[e] + token.d_delta[e] * ln2
        for e in range(lanes):
            dD_E[e] += token.out[e] * u_E[e]


# ---- the two kernels; each call does one share of the tiles ---------------------------------------------------------


@njit(cache=True, **FAST)
def forward(
    share, shares, want, tokens_L, entries_N, u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE
):
    """Moves h from the beginning to the end; fills y unless only the state is wanted, and h before each chunk if K > 0."""
    B, L, E = u_BLE.shape
    N, K, tiles = len(rate_NE), h_BKNE.shape[1], -(-E // TILE)
    for item in range(share, B * tiles, shares):
        i, start = item // tiles, item % tiles * TILE
        lanes = min(TILE, E - start)
        if lanes < TILE:
            _rest(tokens_L)
        _load_entries(entries_N, rate_NE, start, lanes)
        _load_h(entries_N, h_BNE[i], start, lanes)
        for t in range(0, L, CHUNK):
            tokens = tokens_L[: min(CHUNK, L - t)]
            _load_tokens(tokens, u_BLE[i, t:], delta_BLE[i, t:], D_E, start, lanes)
            if K > 0:
                _store_h(entries_N, h_BKNE[i, t // CHUNK], start, lanes)
            for n in range(0, N, BLOCK):
                entries = entries_N[n : n + BLOCK]
                if want == STATE:
                    _advance(tokens, entries, None, B_BLN, None, i, t, n)
                elif want == OUTPUTS:
                    _advance(tokens, entries, None, B_BLN, C_BLN, i, t, n)
                else:
                    _ask(tokens, entries, B_BLN, C_BLN, i, t, n)
            if want != STATE:
                _store_y(tokens, y_BLE[i, t:], start, lanes)
        if want != QUERIES:
            _store_h(entries_N, h_BNE[i], start, lanes)


@njit(cache=True, **FAST)
def backward(
    share, shares, want, tokens_L, entries_N, steps_LN, u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BKNE, dy_BLE,
    du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE,
):  # fmt: skip
    """Moves dh from the end to the beginning; fills du, ddelta, dA; adds to dB, dC, dD. Queries read from the only chunk, 0."""
    B, L, E = u_BLE.shape
    N, G = len(rate_NE), len(dB_GBLN)
    group = -(-E // (TILE * G)) * TILE
    for item in range(share, B * G, shares):
        i, g = item // G, item % G
        for start in range(g * group, min((g + 1) * group, E), TILE):
            lanes = min(TILE, E - start)
            _rest(tokens_L)
            _load_entries(entries_N, rate_NE, start, lanes)
            _load_h(entries_N, h_BKNE[i, 0], start, lanes)
            _load_dh(entries_N, dh_BNE[i], start, lanes)
            for t in range((L - 1) // CHUNK * CHUNK, -1, -CHUNK):
                tokens = tokens_L[: min(CHUNK, L - t)]
                if want == STATE:
                    _load_tokens_and_dy(tokens, u_BLE[i, t:], delta_BLE[i, t:], None, start, lanes)
                else:
                    _load_tokens_and_dy(tokens, u_BLE[i, t:], delta_BLE[i, t:], dy_BLE[i, t:], start, lanes)
                if want != QUERIES:
                    _load_h(entries_N, h_BKNE[i, t // CHUNK], start, lanes)
                for n in range(0, N, BLOCK):
                    entries = entries_N[n : n + BLOCK]
                    if want == QUERIES:
                        _ask_adjoint(tokens, entries, B_BLN, C_BLN, dB_GBLN[g], dC_GBLN[g], i, t, n)
                        continue
                    _advance(tokens, entries, steps_LN, B_BLN, None, i, t, n)
                    if want == OUTPUTS:
                        _retreat(tokens, entries, steps_LN, B_BLN, C_BLN, dB_GBLN[g], dC_GBLN[g], i, t, n)
                    else:
                        _retreat(tokens, entries, steps_LN, B_BLN, None, dB_GBLN[g], dC_GBLN[g], i, t, n)
                _store_gradients(tokens, u_BLE[i, t:], D_E, du_BLE[i, t:], ddelta_BLE[i, t:], dD_BE[i], start, lanes)
            _store_dh_and_dA(entries_N, dh_BNE[i], dA_BNE[i], start, lanes)
