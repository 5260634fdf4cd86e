"""Image transforms: what is done in slices, or sorted first, has the bits of doing the whole at once, image by image."""

import pytest
import torch
from torch.nn import functional as F

from mambacl.tasks import transforms
from mambacl.tasks.transforms import affine, background, turn


def affine_at_once(images, change, fill=None):
    """The whole batch in one grid of (x, y) pairs."""
    height, width = images.shape[-2:]
    y = (torch.arange(height) * 2 + 1).unsqueeze(1) / height - 1
    x = (torch.arange(width) * 2 + 1) / width - 1
    degrees, shift_x, shift_y, growth = change[:, :, None, None].unbind(1)
    cos, sin = (f(torch.deg2rad(degrees)) / (1 + growth) for f in (torch.cos, torch.sin))
    grid = torch.stack([cos * x - sin * y - 2 * shift_x, sin * x + cos * y - 2 * shift_y], dim=-1)
    if fill is None:
        moved = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    else:
        moved = F.grid_sample(images - fill, grid, padding_mode="zeros", align_corners=False) + fill
    return moved.round().to(torch.uint8)


def drawn(shape):
    """Images, and changes of up to a half turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    change = torch.rand(shape[0], 4, generator=generator) * 2 - 1
    return images, change * torch.tensor([180, 0.3, 0.3, 0.5])


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("shape", [(150, 1, 32, 32), (70, 3, 28, 28), (9, 2, 13, 7), (2, 3, 300, 301)])
def test_affine_has_the_bits_of_the_whole_batch_at_once(shape, filled, monkeypatch):
    images, change = drawn(shape)
    fill = background(images) if filled else None
    expected = affine_at_once(images, change, fill)
    for size in (transforms.SLICE, 1, 10**9):
        monkeypatch.setattr(transforms, "SLICE", size)
        assert torch.equal(affine(images, change, fill), expected)


def test_no_change_leaves_images_as_they_are():
    images, _ = drawn((5, 3, 16, 16))
    assert torch.equal(affine(images, torch.zeros(5, 4)), images)


@pytest.mark.parametrize("quarters", [[0, 1, 2, 3, 1, 0, 3], [2, 2], [0]])
def test_each_image_is_turned_by_its_own_quarters(quarters):
    images, _ = drawn((len(quarters), 3, 9, 9))
    expected = torch.stack([torch.rot90(image, q, (-2, -1)) for image, q in zip(images, quarters, strict=True)])
    assert torch.equal(turn(images, torch.tensor(quarters)), expected)
