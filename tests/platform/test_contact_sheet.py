"""Contact sheets show the episode that they say: images, codes, arrows and curves, in stream order."""

import numpy as np
import pytest
import torch
from PIL import Image

from mambacl import tasks
from mambacl.platform.cli import run
from mambacl.platform.contact_sheet import FRAME, GAP, draw, plt, save
from mambacl.tasks.randomness import SPLITS

SIZES = {"tasks": 3, "shots": 2, "queries": 2, "augment": None}
FLAWED = {"order": "shuffled", "open_set": 1, "query_after": "own_task_or_later"}
FAMILIES = {
    "classes": {"name": "glyphs", **SIZES, "stream": FLAWED},
    "rotation": {"name": "glyphs", **SIZES, "target": "rotation", "offset_mode": "label"},
    "completion": {"name": "glyphs", **SIZES, "target": "completion"},
    "sine": {"name": "sine", "tasks": 3, "shots": 2, "queries": 2},
    "recall": {"name": "recall", "tasks": 4, "dimensions": 8, "reassign": 0.5},
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return tasks.build(FAMILIES[request.param])


def test_every_family_has_a_sheet_of_all_splits_with_a_description(family, tmp_path):
    path = save(family, tmp_path / "new" / "sheet.png")
    assert [file.name for file in path.parent.iterdir()] == ["sheet.png"], "no draft is left"
    with Image.open(path) as picture:
        assert min(picture.size) > 200
        assert max(picture.size) < 4000
        assert str(family.config.tasks) in picture.info["Title"]
        assert picture.info["Description"].startswith(picture.info["Title"])
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.std() > 10
    figure, _ = draw(family)
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert [title.split(",")[0] for title in titles] == [
        f"{split}: {part}" for split in SPLITS for part in ("stream", "queries")
    ]
    plt.close(figure)


def test_tiles_are_the_episode_in_stream_order():
    family = tasks.build(FAMILIES["classes"])
    figure, _ = draw(family)
    stream, queries = figure.axes[6], figure.axes[7]
    episode = family.episodes("meta_test", [0])
    assert [text.get_text() for text in stream.texts] == [str(code) for code in episode.support_y[0].tolist()]
    notes = [text.get_text().split(" @") for text in queries.texts]
    assert [note[0] for note in notes] == [str(c) if c >= 0 else "?" for c in episode.query_y[0].tolist()]
    assert [int([*note, "6"][1]) for note in notes] == (episode.query_after[0] + 1).tolist()
    canvas = np.asarray(stream.images[0].get_array())
    for n in range(6):
        left = n * (32 + 2 * FRAME + GAP // 3) + FRAME
        tile = canvas[GAP + FRAME : GAP + FRAME + 32, left : left + 32, 0]
        assert np.allclose(tile, episode.support_x[0, n, 0] / 255)
    plt.close(figure)


def test_arrows_point_where_the_labels_say_and_halves_meet():
    rotation, completion = (tasks.build(FAMILIES[name]) for name in ("rotation", "completion"))
    figure, _ = draw(rotation)
    labels = rotation.episodes("meta_train", [0]).support_y[0]
    arrows = [(text.xy, text.xyann) for text in figure.axes[0].texts if hasattr(text, "arrowprops") and text.arrowprops]
    towards = torch.tensor([[tip[0] - foot[0], foot[1] - tip[1]] for tip, foot in arrows]).float()
    assert torch.allclose(towards / towards.norm(dim=1, keepdim=True), labels, atol=1e-4)
    plt.close(figure)
    figure, _ = draw(completion)
    whole = (
        tasks.build(FAMILIES["completion"] | {"target": "class"}).episodes("meta_train", [0]).support_x[0, 0, 0] / 255
    )
    canvas = np.asarray(figure.axes[0].images[0].get_array())[GAP + FRAME :, FRAME : FRAME + 32, 0]
    assert np.allclose(canvas[:16], whole[:16])
    assert np.allclose(canvas[17:33], whole[16:], atol=1e-6)
    plt.close(figure)


def test_long_episodes_are_shown_in_part_and_say_so():
    figure, _ = draw(tasks.build({"name": "sine"}))
    assert figure.axes[0].get_title(loc="left") == "meta_train: stream, 100 of 500"
    plt.close(figure)


def test_the_command_draws_and_refuses_other_files(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    assert run("show", ["quickstart", "--picture", str(path)]) == 0
    assert path.is_file()
    assert "sheet.png" in capsys.readouterr().out
    assert run("show", ["quickstart", "--picture", str(tmp_path / "sheet.jpg")]) == 2
    assert "picture: must be a .png file" in capsys.readouterr().err
