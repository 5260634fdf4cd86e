"""Image transforms over a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

SLICE = 1 << 16
"""Pixels that a thread moves together: what they need stays in a core's caches, and they take a third of the time."""


def affine(images: Tensor, change: Tensor, fill: Tensor | None = None) -> Tensor:
    """Turn, shift and resize each image by its own amount, with bilinear interpolation and the border continued.

    images: (n, channels, height, width) uint8. change: (n, 4) float32: degrees anticlockwise, shift in x and y as shares of
    the side, relative change of size. fill: (n, channels, 1, 1) what lies beyond the border instead. Returns uint8 of the
    same shape.
    """
    height, width = images.shape[-2:]
    # Pixel centres in the sampler's coordinates, which span -1..1 from edge to edge.
    y = (torch.arange(height) * 2 + 1).unsqueeze(1) / height - 1
    x = (torch.arange(width) * 2 + 1) / width - 1
    degrees, shift_x, shift_y, growth = change[:, :, None, None].unbind(1)
    # The grid says where each pixel comes from, so it is the inverse of the change.
    cos, sin = (f(torch.deg2rad(degrees)) / (1 + growth) for f in (torch.cos, torch.sin))
    moved = torch.empty_like(images, memory_format=torch.contiguous_format)
    size = max(1, SLICE * torch.get_num_threads() // (height * width))
    for some in (slice(begin, begin + size) for begin in range(0, len(images), size)):
        # Coordinates lie in planes, which the sampler reads as fast as pairs and which need not be put together.
        grid = torch.empty(len(change[some]), 2, height, width)
        torch.sub(cos[some] * x, sin[some] * y, out=grid[:, 0]).sub_(2 * shift_x[some])
        torch.add(sin[some] * x, cos[some] * y, out=grid[:, 1]).sub_(2 * shift_y[some])
        if fill is None:
            sampled = _sample(images[some].float(), grid, "border")
        else:
            sampled = _sample(images[some] - fill[some], grid, "zeros") + fill[some]
        moved[some] = sampled.round_()
    return moved


def _sample(images: Tensor, grid: Tensor, beyond: str) -> Tensor:
    """Images at the places of a grid (n, 2, height, width), with what lies beyond the border."""
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), padding_mode=beyond, align_corners=False)


def background(images: Tensor) -> Tensor:
    """The median of the outermost pixels of each image and channel, (n, channels, 1, 1) float32."""
    edges = [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]]
    return torch.cat(edges, dim=-1).float().median(dim=-1).values[..., None, None]


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image by its own number of quarter turns.

    images: (n, channels, side, side). quarters: (n,) int64 in 0..3.
    """
    order = quarters.argsort()
    parts = images.index_select(0, order).split(quarters.bincount(minlength=4).tolist())
    turned = torch.cat([torch.rot90(part, quarter, dims=(-2, -1)) for quarter, part in enumerate(parts)])
    return turned.index_select(0, order.argsort())
