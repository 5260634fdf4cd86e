# type: ignore  # Triton's language looks like Python to a type checker
"""Fused loops of the selective scan, of the selective read and of their adjoints, in Triton.

Legend: B episodes, L tokens (or queries), E inner width, N state size, K chunks of tokens, G tiles of channels.

A program takes a tile of channels of one episode through all its tokens, with the state in registers. A chunk of CHUNK
tokens is unrolled: outputs are kept to its end, since a load cannot be moved before a store, and so the loads of all its
tokens are on their way at once. Backward recomputes the states of a chunk from the one saved at its start and keeps them
in registers, too. Sums to which several programs add (dA, dB, dC, dD) are kept apart by episode or by tile and added up
afterwards: atomic sums would have other bits each time.

Tokens may be in half precision; all else, and all arithmetic, is in the type of `rate`. Tokens beyond L are steps of zero.
"""

import triton
import triton.language as tl

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _row(x, row, width, number, end, real: tl.constexpr):
    """Entries of one token, of `width` numbers; zero from `end` on."""
    return tl.load(x + row * width + number, number < end, 0).to(real)


@triton.jit
def _token(i, t, L, E, N):
    """Place of a token in the batch, and ends of its entries: E and N, or 0 for what only fills a chunk."""
    return i * L + t, tl.where(t < L, E, 0), tl.where(t < L, N, 0)


@triton.jit(do_not_specialize=["L"])  # the kernels of one length are those of all
def forward(
    u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BNE, h_BKNE, y_BLE, L, E, N,
    SAVES: tl.constexpr, OUTPUTS: tl.constexpr, DIRECT: tl.constexpr, QUERIES: tl.constexpr,
    CHUNK: tl.constexpr, TILE: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Moves h from the beginning to the end; fills y with OUTPUTS, and h before each chunk with SAVES.

    DIRECT: D takes part. QUERIES: every token is asked of the first state, which stays. STATE: N or the next power of two.
    """
    i, e, n = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE + tl.arange(0, TILE), tl.arange(0, STATE)
    on_E, on_N = e < E, n < N
    on, entry = on_N[:, None] & on_E[None, :], n[:, None] * E + e[None, :]
    real = rate_NE.dtype.element_ty
    rate = tl.load(rate_NE + entry, on, 0)
    h = tl.load(h_BNE + i * N * E + entry, on, 0)
    factor = tl.load(D_E + e, on_E, 0) if DIRECT else tl.zeros((TILE,), real)
    chunks = tl.cdiv(L, CHUNK)
    for k in range(chunks):
        if SAVES:
            tl.store(h_BKNE + (i * chunks + k) * N * E + entry, h, on)
        outputs = ()
        for t in tl.static_range(CHUNK):
            row, e_end, n_end = _token(i, k * CHUNK + t, L, E, N)
            u = _row(u_BLE, row, E, e, e_end, real)
            delta = _row(delta_BLE, row, E, e, e_end, real)
            b = _row(B_BLN, row, N, n, n_end, real)
            after = tl.exp2(delta[None, :] * rate) * h + b[:, None] * (delta * u)[None, :]
            if not QUERIES:
                h = after
            if OUTPUTS:
                c = _row(C_BLN, row, N, n, n_end, real)
                outputs = outputs + (tl.sum(c[:, None] * after, 0) + factor * u,)  # noqa: RUF005  # Triton knows no *
        if OUTPUTS:
            for t in tl.static_range(CHUNK):
                row, e_end, n_end = _token(i, k * CHUNK + t, L, E, N)
                tl.store(y_BLE + row * E + e, outputs[t].to(y_BLE.dtype.element_ty), e < e_end)
    if not QUERIES:
        tl.store(h_BNE + i * N * E + entry, h, on)


@triton.jit(do_not_specialize=["L"])
def backward(
    u_BLE, delta_BLE, rate_NE, B_BLN, C_BLN, D_E, h_BKNE, dy_BLE,
    du_BLE, ddelta_BLE, dA_BNE, dB_GBLN, dC_GBLN, dD_BE, dh_BNE, L, E, N,
    OUTPUTS: tl.constexpr, DIRECT: tl.constexpr, QUERIES: tl.constexpr,
    CHUNK: tl.constexpr, TILE: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """Moves dh from the end to the beginning, fills all other gradients: dC with OUTPUTS, dD with DIRECT. QUERIES: K = 1."""
    i, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e, n = g * TILE + tl.arange(0, TILE), tl.arange(0, STATE)
    on_E, on_N = e < E, n < N
    on, entry = on_N[:, None] & on_E[None, :], n[:, None] * E + e[None, :]
    real = rate_NE.dtype.element_ty
    rate = tl.load(rate_NE + entry, on, 0)
    dh = tl.load(dh_BNE + i * N * E + entry, on, 0)
    dA = tl.zeros((STATE, TILE), real)
    factor = tl.load(D_E + e, on_E, 0) if DIRECT else tl.zeros((TILE,), real)
    dD = tl.zeros((TILE,), real)
    part = g * tl.num_programs(0).to(tl.int64) * L  # rows before this tile's in dB and dC
    chunks = tl.cdiv(L, CHUNK)
    for back in range(chunks):
        k = chunks - 1 - back
        h = tl.load(h_BKNE + (i if QUERIES else i * chunks + k) * N * E + entry, on, 0)
        befores = ()
        for t in tl.static_range(CHUNK):
            befores = befores + (h,)  # noqa: RUF005
            if not QUERIES:
                row, e_end, n_end = _token(i, k * CHUNK + t, L, E, N)
                u = _row(u_BLE, row, E, e, e_end, real)
                delta = _row(delta_BLE, row, E, e, e_end, real)
                b = _row(B_BLN, row, N, n, n_end, real)
                h = tl.exp2(delta[None, :] * rate) * h + b[:, None] * (delta * u)[None, :]
        for t in tl.static_range(CHUNK - 1, -1, -1):
            row, e_end, n_end = _token(i, k * CHUNK + t, L, E, N)
            u = _row(u_BLE, row, E, e, e_end, real)
            delta = _row(delta_BLE, row, E, e, e_end, real)
            b = _row(B_BLN, row, N, n, n_end, real)
            before, decay, write = befores[t], tl.exp2(delta[None, :] * rate), delta * u
            d_after = tl.zeros((STATE, TILE), real) if QUERIES else dh
            du = tl.zeros((TILE,), real)
            if OUTPUTS:
                c = _row(C_BLN, row, N, n, n_end, real)
                dy = _row(dy_BLE, row, E, e, e_end, real)
                d_after += c[:, None] * dy[None, :]
                dc = tl.sum((decay * before + b[:, None] * write[None, :]) * dy[None, :], 1)
                tl.store(dC_GBLN + (part + row) * N + n, dc, n < n_end)
                if DIRECT:
                    du = factor * dy
                    dD += dy * u
            tl.store(dB_GBLN + (part + row) * N + n, tl.sum(d_after * write[None, :], 1), n < n_end)
            d_write = tl.sum(d_after * b[:, None], 0)
            d_before = d_after * decay
            d_exponent = d_before * before
            d_delta = d_write * u + tl.sum(d_exponent * rate, 0) * LN2
            dA += d_exponent * delta[None, :]
            dh = dh + d_before if QUERIES else d_before
            tl.store(du_BLE + row * E + e, (du + d_write * delta).to(du_BLE.dtype.element_ty), e < e_end)
            tl.store(ddelta_BLE + row * E + e, d_delta.to(ddelta_BLE.dtype.element_ty), e < e_end)
    tl.store(dA_BNE + i * N * E + entry, dA, on)
    tl.store(dh_BNE + i * N * E + entry, dh, on)
    if DIRECT:
        tl.store(dD_BE + i * E + e, dD, on_E)
