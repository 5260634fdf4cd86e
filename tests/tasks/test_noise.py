"""Noise on examples: as strong as asked, on what was asked, the same for an episode wherever it is made."""

import numpy as np
import pytest
import torch

from mambacl import tasks

SINE = {"name": "sine", "tasks": 4, "shots": 5, "queries": 3}
GLYPHS = {"name": "glyphs", "tasks": 4, "shots": 5, "queries": 3, "augment": None}


def episodes(config, split="meta_test", numbers=range(40), **noise):
    return tasks.build(config | ({"noise": noise} if noise else {})).episodes(split, numbers)


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_vectors_get_noise_relative_to_each_dimension(strength):
    clean, noisy = episodes(SINE), episodes(SINE, site="pixel", strength=strength)
    spread = clean.support_x.std(dim=1, correction=0, keepdim=True)
    for a, b in ((clean.support_x, noisy.support_x), (clean.query_x, noisy.query_x)):
        z = (b - a) / spread
        assert float(z.mean()) == pytest.approx(0, abs=0.05 * strength)
        assert float(z.std()) == pytest.approx(strength, rel=0.05)
    assert torch.equal(clean.support_y, noisy.support_y)
    assert noisy.noise is None, "it is in the examples already"


def test_images_stay_images_and_get_as_much_noise_on_every_pixel(tmp_path):
    """Grey images far from 0 and 255, so that nothing is clipped."""
    images = np.random.default_rng(0).integers(120, 136, (200, 16, 16), np.uint8)
    images[:, :8] = 128  # an upper half that never changes gets noise all the same
    np.savez(tmp_path / "a.npz", images=images, label=np.repeat(np.arange(20), 10))
    config = {"name": "images", "path": str(tmp_path / "a.npz"), "tasks": 3, "shots": 4, "queries": 2, "augment": None}
    clean, noisy = episodes(config), episodes(config, site="pixel", strength=4)
    assert noisy.support_x.dtype == torch.uint8
    spread = clean.support_x.float().flatten(2).var(dim=1, correction=0).mean(1).sqrt()
    difference = (noisy.support_x.float() - clean.support_x.float()).flatten(3)
    for half in difference.chunk(2, dim=3):
        measured = half.flatten(1).std(dim=1)
        assert float((measured / spread).mean()) == pytest.approx(4, rel=0.05)


def test_noise_is_clipped_to_what_a_pixel_can_be():
    noisy = episodes(GLYPHS, site="pixel", strength=10)
    shares = noisy.query_x.flatten().bincount(minlength=256) / noisy.query_x.numel()
    assert shares[0] > 0.3
    assert shares[255] > 0.3


@pytest.mark.parametrize("config", [SINE, GLYPHS], ids=lambda config: config["name"])
@pytest.mark.parametrize("target", ["support", "query", "both"])
def test_only_the_target_is_disturbed(config, target):
    clean, noisy = episodes(config), episodes(config, site="pixel", target=target)
    assert torch.equal(clean.support_x, noisy.support_x) == (target == "query")
    assert torch.equal(clean.query_x, noisy.query_x) == (target == "support")
    both = episodes(config, site="pixel", target="both")
    name = "query_x" if target == "query" else "support_x"
    assert torch.equal(getattr(both, name), getattr(noisy, name)), "the same noise for whichever target"


@pytest.mark.parametrize("config", [SINE, GLYPHS], ids=lambda config: config["name"])
def test_noise_depends_on_the_number_and_the_split_alone(config):
    noise = {"site": "pixel", "strength": 0.5}
    together = episodes(config, numbers=[7, 3, 2**50], **noise)
    for row, number in enumerate([7, 3, 2**50]):
        assert torch.equal(episodes(config, numbers=[number], **noise).support_x[0], together.support_x[row])
    clean = [episodes(config, split, [7]).support_x.float() for split in ("meta_val", "meta_test")]
    noisy = [episodes(config, split, [7], **noise).support_x.float() for split in ("meta_val", "meta_test")]
    assert not torch.allclose(noisy[0] - clean[0], noisy[1] - clean[1])


def test_noise_is_part_of_what_a_family_is():
    digests = [tasks.build(SINE | ({"noise": n} if n else {})).spec.digest for n in (None, {"site": "token"})]
    assert len(set(digests)) == 2
    with pytest.raises(
        ValueError, match=r"^task\.noise\.site: must be 'pixel', 'encoder_out' or 'token', got 'pixels'$"
    ):
        tasks.build(SINE | {"noise": {"site": "pixels"}})
