"""Image transforms over a whole batch at once."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    grid = torch.stack([cos * x - sin * y - 2 * shift_x, sin * x + cos * y - 2 * shift_y], dim=-1)
    if fill is None:
        moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    else:
        moved = F.grid_sample(images - fill, grid, padding_mode="zeros", align_corners=False) + fill
    return moved.round_().to(torch.uint8)


def background(images: Tensor) -> Tensor:
    """The median of the outermost pixels of each image and channel, (n, channels, 1, 1) float32."""
    edges = [images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1]]
    return torch.cat(edges, dim=-1).float().median(dim=-1).values[..., None, None]


def turn(images: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image by its own number of quarter turns.

    images: (n, channels, side, side). quarters: (n,) int64 in 0..3.
    """
    turned = images.clone()
    for quarter in (1, 2, 3):
        chosen = quarters == quarter
        turned[chosen] = torch.rot90(images[chosen], quarter, dims=(-2, -1))
    return turned
