"""Selective scan and selective read on the CPU: numba kernels with hand-written adjoints as differentiable torch functions.

Legend: B episodes, M queries, L tokens, E inner width, N state size, K chunks of tokens, G groups of tiles, W workers.
"""

import threading
import time
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from mambacl.learners.scan import kernels
from mambacl.learners.scan.shapes import check_read, check_scan

PARTS = 64
"""Partial sums of gradients over a batch: a number fixed here, not taken from the machine, so that results do not depend on threads."""

_launch = threading.Lock()  # numba's fallback threading layer, workqueue, dies of two launches at once


def _run(name: str, items: int, arrays: list[np.ndarray | None], *, steps: bool) -> None:
    """Run a kernel with as many workers as torch has threads, numba allows and items can feed."""
    real = arrays[0].dtype.type
    workers = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS, items))
    work = [_records(kernels.token_record(real), workers, kernels.CHUNK), _records(kernels.entry_record(real), workers, arrays[2].shape[0])]
    if steps:
        work.append(_records(kernels.step_record(real), workers, kernels.CHUNK + 1, kernels.BLOCK))
    if workers == 1:
        getattr(kernels, f"{name}_worker")(0, 1, *(w[0] for w in work), *arrays)
        return
    with _launch:
        before = numba.get_num_threads()
        numba.set_num_threads(workers)
        try:
            getattr(kernels, name)(workers, *work, *arrays)
        finally:
            numba.set_num_threads(before)


def _records(record: np.dtype, *shape: int) -> np.ndarray:
    """Workspace from torch's allocator, which aligns to cache lines: unaligned vectors would cost twice."""
    size = int(np.prod(shape)) * record.itemsize
    return torch.empty(size, dtype=torch.uint8).numpy().view(record).reshape(shape)


def _array(x: Tensor | None) -> np.ndarray | None:
    return None if x is None else x.detach().contiguous().numpy()


def _inputs(u, delta, A_EN, B, C, D_E) -> list:
    rate_NE = (A_EN.detach() * kernels.LOG2E).t()
    D_E = A_EN.new_zeros(A_EN.shape[0]) if D_E is None else D_E
    return [_array(x) for x in (u, delta, rate_NE, B, C, D_E)]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN):
        ctx.set_materialize_grads(False)
        y, h, chunks = _scan_forward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, h_BEN, save=True)
        ctx.save_for_backward(u_BLE, delta_BLE, A_EN, B_BLN, C_BLN, D_E, chunks)
        return y, h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy_BLE, dh_BEN):
        u, delta, A, B, C, D, chunks = ctx.saved_tensors
        b,l,e=u.shape; n=A.shape[1]
        if dy_BLE is None: C_=None
        else: C_=C
        dh_BNE = u.new_zeros(b,n,e) if dh_BEN is None else dh_BEN.transpose(1,2).contiguous().clone()
        tiles = -(-e // kernels.TILE)
        G = min(tiles, -(-PARTS // max(b,1)))
        G = -(-tiles // -(-tiles//G)) if tiles else 0
        du, dd = torch.empty_like(u,memory_format=torch.contiguous_format), torch.empty_like(u,memory_format=torch.contiguous_format)
        dA = u.new_empty(b,n,e); dB=u.new_zeros(G,b,l,n); dC=u.new_zeros(G,b,l,n); dD=u.new_zeros(b,e)
        _run("scan_adjoint", b*G, _inputs(u,delta,A,B,C_,D)+[_array(x) for x in (chunks, dy_BLE, du, dd, dA, dB, dC, dD, dh_BNE)], steps=True)
        return du, dd, dA.sum(0).t(), dB.sum(0), dC.sum(0), dD.sum(0), dh_BNE.transpose(1,2)

def _scan_forward(u,delta,A,B,C,D,h,save):
    b,l,e=u.shape; n=A.shape[1]
    h_BNE = u.new_zeros(b,n,e) if h is None else h.detach().transpose(1,2).contiguous().clone()
    y = None if C is None else torch.empty_like(u,memory_format=torch.contiguous_format)
    chunks = u.new_empty(b,-(-l//kernels.CHUNK),n,e) if save else None
    tiles = -(-e // kernels.TILE)
    _run("scan", b*tiles, _inputs(u,delta,A,B,C,D)+[_array(x) for x in (h_BNE,y,chunks)], steps=False)
    return y, h_BNE.transpose(1,2), chunks

def selective_scan(*a):
    return _Scan.apply(*a)
