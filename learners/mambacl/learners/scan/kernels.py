"""Fused loops of the selective scan, of the selective read and of their adjoints, compiled by numba.

Legend: B episodes, L tokens (or queries), E inner width, N state size, K chunks of tokens, G groups of tiles.

Work is cut into tiles of TILE channels of one episode, tokens into chunks and the state into blocks: all that a tile
needs stays in the first two levels of cache. The innermost loop always runs over the TILE channels, a count known to the
compiler, and becomes straight vector code. The records below serve the same end: their fields lie at constant distances,
so a loop needs three pointers where separate arrays need thirteen and spill (the adjoint took 1.7 times as long).

Backward recomputes the states of a chunk from the one saved at its start. Sums to which several tiles add (dA, dB, dC,
dD) are kept apart by episode or by group of tiles, which depend on shapes alone: results have equal bits for any number
of threads.

Everything numba compiles is in this file: its cache notices changes of a kernel's own file, not of files imported there.
"""

from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

TILE = 128  # channels in the innermost loop: eight AVX-512 registers of float32
CHUNK = 16  # tokens between two saved states
BLOCK = 4  # entries of the state taken through a chunk at once: their history is 68 KiB in float32

STATE, OUTPUTS, QUERIES = 0, 1, 2  # wanted: the final state alone, outputs too, or independent steps from one state

LOG2E = 1.4426950408889634
LN2 = 0.6931471805599453

# No flag lets the compiler assume away NaN or infinity. `reassoc` is for sums over channels; exp2 goes without.
FAST: dict[str, Any] = {"fastmath": {"contract", "reassoc"}, "error_model": "numpy", "nogil": True}
# Without wrappers they compile in half the time. All are inlined by force: of a function that stays one, the process that
# compiles may run another copy than those that load the cache, with sums in another order, and so with other bits.
INNER: dict[str, Any] = FAST | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}


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
    """2**x. In float32 it vectorises, errs by up to 1.8 units in the last place, is 0 under -127 and inf from 128 on."""
    return np.exp2(x)


@overload(exp2, jit_options={"fastmath": {"contract"}, "error_model": "numpy"})
def _exp2(x):
    if x != types.float32:
        return lambda x: np.exp2(x)
    low, high = np.float32(-127), np.float32(128)
    shift = np.float32(1.5 * 2**23)  # a sum with it holds the rounded x in its low bits
    # minimax error in units in the last place on [-1/2, 1/2], with value 1 at 0: whole numbers come out exact
    c1, c2, c3 = np.float32(0.693146824836731), np.float32(0.24022236466407776), np.float32(0.05550900101661682)
    c4, c5, zero, one = np.float32(0.009671780280768871), np.float32(0.001322291325777769), np.float32(0), np.float32(1)

    def vectorisable(x):
        x = high if x > high else x  # a comparison with NaN is false: NaN passes
        rounded = np.float32(x + shift)
        r = x - (rounded - shift)
        p = np.float32(((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + one)
        power = np.int32(p.view(np.int32) + (rounded.view(np.int32) << 23)).view(np.float32)
        return zero if x < low else power  # cheaper here than a second clamp above, which all else would wait for

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
    """Adjoint of `_advance`: finds the outputs' gradient in `out`, moves dh back by a chunk, adds to all others."""
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
    """Adjoint of `_ask`: finds the outputs' gradient in `out`, adds to all others."""
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


# ---- between arrays and records; in the last tile, channels beyond E are zero ---------------------------------------


@njit(**INNER)
def _load_entries(entries_N, rate_NE, dh_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, rate_E = entries_N[n], rate_NE[n, start : start + lanes]
        for e in range(TILE):
            entry.rate[e] = entry.h[e] = entry.dh[e] = entry.dA[e] = 0
        for e in range(lanes):
            entry.rate[e] = rate_E[e]
        if dh_NE is not None:
            dh_E = dh_NE[n, start : start + lanes]
            for e in range(lanes):
                entry.dh[e] = dh_E[e]


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
def _store_gradients_of_entries(entries_N, dh_NE, dA_NE, start, lanes):
    for n in range(len(entries_N)):
        entry, dh_E, dA_E = entries_N[n], dh_NE[n, start : start + lanes], dA_NE[n, start : start + lanes]
        for e in range(lanes):
            dh_E[e] = entry.dh[e]
            dA_E[e] = entry.dA[e]


@njit(**INNER)
def _load_tokens(tokens_L, u_LE, delta_LE, D_E, dy_LE, start, lanes):
    """`out` begins at D u if D is given, is the outputs' gradient if dy is given, and zero otherwise."""
    for t in range(len(tokens_L)):
        token, u_E, delta_E = tokens_L[t], u_LE[t, start : start + lanes], delta_LE[t, start : start + lanes]
        if lanes < TILE or D_E is None:
            for e in range(TILE):
                token.delta[e] = token.write[e] = token.out[e] = token.d_delta[e] = token.d_write[e] = 0
        for e in range(lanes):
            token.delta[e] = delta_E[e]
            token.write[e] = delta_E[e] * u_E[e]
        if D_E is not None:
            factor_E = D_E[start : start + lanes]
            for e in range(lanes):
                token.out[e] = factor_E[e] * u_E[e]
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
def _store_gradients_of_tokens(tokens_L, u_LE, D_E, du_LE, ddelta_LE, dD_E, start, lanes):
    ln2 = D_E.dtype.type(LN2)
    D_E, dD_E = D_E[start : start + lanes], dD_E[start : start + lanes]
    for t in range(len(tokens_L)):
        token, u_E = tokens_L[t], u_LE[t, start : start + lanes]
        du_E, ddelta_E = du_LE[t, start : start + lanes], ddelta_LE[t, start : start + lanes]
        # three loops: the compiler gives up on one with so many arrays that might overlap
        for e in range(lanes):
            du_E[e] = token.d_write[e] * token.delta[e] + token.out[e] * D_E[e]
        for e in range(lanes):
            ddelta_E[e] = token.d_write[e] * u_E[e] + token.d_delta[e] * ln2
        for e in range(lanes):
            dD_E[e] += token.out[e] * u_E[e]


# ---- the two kernels; a call does one share of all tiles ------------------------------------------------------------


@njit(cache=True, **FAST)
def forward(
    share, shares, want, tokens_L, entries_N, u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE
):
    """Moves h from the beginning to the end; fills y unless STATE is wanted, and h before each chunk if K > 0."""
    B, L, E = u_BLE.shape
    N, K, tiles = len(rate_NE), h_BKNE.shape[1], -(-E // TILE)
    for item in range(share, B * tiles, shares):
        i, start = item // tiles, item % tiles * TILE
        lanes = min(TILE, E - start)
        _load_entries(entries_N, rate_NE, None, start, lanes)
        _load_h(entries_N, h_BNE[i], start, lanes)
        for t in range(0, L, CHUNK):
            tokens = tokens_L[: min(CHUNK, L - t)]
            _load_tokens(tokens, u_BLE[i, t:], delta_BLE[i, t:], D_E, None, start, lanes)
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
    """Moves dh from the end to the beginning, fills du, ddelta, dA, adds to dB, dC, dD. Queries ask the state at K = 0."""
    B, L, E = u_BLE.shape
    N, G = len(rate_NE), len(dB_GBLN)
    group = -(-E // (TILE * G)) * TILE
    for item in range(share, B * G, shares):
        i, g = item // G, item % G
        for start in range(g * group, min((g + 1) * group, E), TILE):
            lanes = min(TILE, E - start)
            _load_entries(entries_N, rate_NE, dh_BNE[i], start, lanes)
            for t in range((L - 1) // CHUNK * CHUNK, -1, -CHUNK):
                tokens = tokens_L[: min(CHUNK, L - t)]
                if want == STATE:
                    _load_tokens(tokens, u_BLE[i, t:], delta_BLE[i, t:], None, None, start, lanes)
                else:
                    _load_tokens(tokens, u_BLE[i, t:], delta_BLE[i, t:], None, dy_BLE[i, t:], start, lanes)
                _load_h(entries_N, h_BKNE[i, 0 if want == QUERIES else t // CHUNK], start, lanes)
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
                _store_gradients_of_tokens(
                    tokens, u_BLE[i, t:], D_E, du_BLE[i, t:], ddelta_BLE[i, t:], dD_BE[i], start, lanes
                )
            _store_gradients_of_entries(entries_N, dh_BNE[i], dA_BNE[i], start, lanes)
