"""Fresh weights with which a learner answers by similarity: the label codes of the stream's examples, weighted by how alike they are
to the query. With a state that sums it is a classifier by class means, with softmax one by neighbours, in the features of its encoder.

An example takes the first numbers of a token, its label the others. Through the short convolution a label token holds both: the
key of the example before it, and the value of its own label. Shapes: D width, F numbers of an example, V label codes.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from mambacl.learners.sequence import SequenceLearner

SHARPNESS = 8.0
"""Largest difference between the logits of fresh answers."""


@torch.no_grad()
def start_by_similarity(learner: "SequenceLearner", codes: int) -> None:
    """Give a fresh learner such weights. Only the last block answers; what the others add is zero until they learn."""
    D = learner.config.width
    features = D - labels_of(D, codes)
    learner.encoder.confine(features)  # type: ignore[operator]  # of every encoder
    assert isinstance(learner.label, nn.Embedding)
    learner.label.weight.zero_()
    learner.label.weight[:, features:] = math.sqrt(D) * frame(codes, D - features)
    learner.head.weight.copy_(SHARPNESS / D * learner.label.weight)
    for block in learner.blocks:
        block.mixer.start_by_similarity(features)  # type: ignore[operator]
        if block is not learner.blocks[-1]:
            block.mixer.out_proj.weight.zero_()  # type: ignore[union-attr]


def labels_of(width: int, codes: int) -> int:
    """Numbers of a token that are its label's: one a code, but at most half."""
    return min(codes, width // 2)


def frame(rows: int, columns: int) -> Tensor:
    """Vectors of length 1 (rows, columns), at right angles as far as there is room, else as evenly spread as random ones."""
    if rows <= columns:
        return torch.eye(rows, columns)
    square = torch.linalg.qr(torch.randn(rows, rows)).Q[:, :columns]
    return nn.functional.normalize(square, dim=1)


def projection(outputs: int, inputs: int) -> Tensor:
    """A map (outputs, inputs) that keeps products of vectors: the identity with zeros, or a random one where outputs are fewer."""
    if outputs >= inputs:
        return torch.eye(outputs, inputs)
    return math.sqrt(inputs / outputs) * torch.linalg.qr(torch.randn(inputs, outputs)).Q.T
