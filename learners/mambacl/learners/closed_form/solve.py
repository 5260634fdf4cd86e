"""Linear equations of many episodes.

Shapes: B episodes, V right sides, F unknowns.
"""

from collections.abc import Iterable

import torch
from torch import Tensor


def solve(matrices: Iterable[Tensor], diagonal_B: Tensor, right_BFV: Tensor) -> Tensor:
    """W (B, F, V) of (A + d I) W = right, for an A (F, F) without negative eigenvalues and a d > 0 of each episode.

    One episode after the other: matrices and factors of all at once would need gigabytes. A generator makes each A when it is
    its turn.
    """
    solved = []
    for matrix, diagonal, right in zip(matrices, diagonal_B, right_BFV, strict=True):
        shifted = matrix.clone()
        shifted.diagonal().add_(diagonal)
        solved.append(torch.cholesky_solve(right, torch.linalg.cholesky(shifted)))
    return torch.stack(solved)
