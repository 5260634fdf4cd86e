"""Contact sheets: an episode of each split as one picture, the stream in order and the queries beside it.

Every example is a tile: an image with a frame in its task's colour, an angle as an arrow on it, a completed image, or two
curves. Vectors with label codes are rows of a matrix. Shapes: N examples shown.
"""

import dataclasses
import os
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from mambacl.platform.evaluation.figures import PALETTE
from mambacl.tasks.config import ConfigError
from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family import Family
from mambacl.tasks.randomness import SPLITS

ACROSS = 20
"""Tiles of the stream in a row, or a little less, so that rows hold whole tasks."""
MOST = {"support": 100, "query": 60}
"""Examples that are shown, the first ones."""
FRAME, GAP = 2, 10
"""Pixels of a frame, and between tiles."""
SIDE = 32
"""Height in pixels of a tile without an image; it is twice as wide."""
WIDTH = 14
"""Inches."""
FRAMES = tuple(colour for colour in PALETTE if colour != "#000000")
"""Colours of tasks, in turns; black would not be seen around dark images."""
UNKNOWN = "#888888"


@dataclasses.dataclass(frozen=True)
class Part:
    """The stream or the queries of one episode, as numpy arrays."""

    x: np.ndarray
    """(N, *shape)."""
    y: np.ndarray
    """(N,) codes or (N, size) values."""
    task: np.ndarray
    """(N,); -1 for none that the stream has."""
    notes: list[str]
    """What is written above each."""
    whole: int
    """Examples in all, shown or not."""

    def colour(self, n: int) -> str:
        return UNKNOWN if self.task[n] < 0 else FRAMES[self.task[n] % len(FRAMES)]


def save(family: Family, path: Path) -> Path:
    """Draw episode 0 of each split and write a PNG, whose description says in words what it shows. Raises ConfigError for
    another kind of file."""
    if path.suffix.lower() != ".png":
        raise ConfigError(f"picture: must be a .png file, got {path}")
    figure, description = draw(family)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    metadata = {"Title": title(family), "Description": description}
    figure.savefig(draft, format="png", dpi=150, bbox_inches="tight", metadata=metadata)
    plt.close(figure)
    draft.rename(path)
    return path


def draw(family: Family) -> tuple[Figure, str]:
    """The picture, and what it shows in words."""
    spec, shots = family.spec, family.config.shots
    parts = {split: parts_of(family.fitted(split).episodes(split, [0])) for split in SPLITS}
    support, queries = (len(part.x) for part in parts[SPLITS[0]])
    matrix = spec.input == "vector" and spec.output == "classification"
    across = min(support, shots * max(1, ACROSS // shots))
    rows = -(-support // across)
    columns = (across, -(-queries // rows))
    step_y, step_x = tile_step(spec)
    inches = 0.14 * support if matrix else WIDTH * rows * step_y / (sum(columns) * step_x)
    figure, axes = plt.subplots(
        len(SPLITS),
        2,
        figsize=(WIDTH, len(SPLITS) * (inches + 0.3) + 0.4),
        width_ratios=[1, 1] if matrix else columns,
        squeeze=False,
        layout="constrained",
    )
    for pair_of_axes, (split, pair) in zip(axes, parts.items(), strict=True):
        for axis, part, count, name in zip(pair_of_axes, pair, columns, ("stream", "queries"), strict=True):
            if matrix:
                _matrix(axis, part)
            else:
                _tiles(axis, part, spec, count)
            shown = "" if part.whole == len(part.x) else f", {len(part.x)} of {part.whole}"
            places = ", @n: asked after n examples" if any("@" in note for note in part.notes) else ""
            axis.set_title(f"{split}: {name}{shown}{places}", fontsize=9, loc="left")
    figure.suptitle(title(family), fontsize=11)
    return figure, f"{title(family)}. {LEGENDS[spec.output]}"


def title(family: Family) -> str:
    """What the episodes are, in a line."""
    config = family.config
    target = getattr(config, "target", "class")
    flaws = config.model_dump(exclude_defaults=True, include={"offset_mode", "reassign"})
    flaws |= config.stream.model_dump(exclude_defaults=True)
    noise = {} if config.noise is None else {"noise": config.noise.site, "strength": config.noise.strength}
    options = "".join(f", {name} {value}".replace("_", " ") for name, value in (flaws | noise).items())
    kind = config.name if target == "class" else f"{target} of {config.name}"  # type: ignore[attr-defined]
    return f"{kind}: episode 0, {config.tasks} tasks x {config.shots} shots{options}"


LEGENDS = {
    "classification": "Left the stream in order, right the queries: above each its label code, frames in the colour of its task; "
    "queries without an answer are grey and have a question mark.",
    "angle": "Left the stream in order, right the queries: arrows point where the label says, frames have the colour of the task.",
    "regression": "Left the stream in order, right the queries, each with its target: halves of images below the line, curves "
    "in orange. Frames have the colour of the task.",
}


def parts_of(episode: Episode) -> tuple[Part, Part]:
    """Stream and queries of the first episode of a batch."""
    T = episode.support_task.shape[1]
    after = episode.query_after[0].tolist()
    places = {"support": [""] * T, "query": ["" if place == T - 1 else f" @{place + 1}" for place in after]}
    found = []
    for name, most in MOST.items():
        x, y, task = (getattr(episode, f"{name}_{field}")[0].numpy() for field in ("x", "y", "task"))
        codes = [("?" if code < 0 else str(code)) for code in y] if y.ndim == 1 else [""] * len(y)
        notes = [code + place for code, place in zip(codes, places[name], strict=True)]
        found.append(Part(x[:most], y[:most], task[:most], notes[:most], len(x)))
    return found[0], found[1]


def tile_step(spec: Spec) -> tuple[int, int]:
    """Height and width of a tile with its frame and the gap behind it, in pixels."""
    height, width = spec.shape[1:] if spec.input == "image" else (SIDE, 2 * SIDE)
    if spec.input == "image" and spec.output == "regression":
        height += 1 + spec.size // (spec.shape[0] * width)
    return height + 2 * FRAME + GAP, width + 2 * FRAME + GAP // 3


def _tiles(axis: Axes, part: Part, spec: Spec, columns: int) -> None:
    """Put tiles in rows on one canvas, and on them what is no image."""
    pictures = _pictures(part, spec)
    height, width = pictures.shape[1:3]
    step_y, step_x = tile_step(spec)
    canvas = np.ones((-(-len(part.x) // columns) * step_y, columns * step_x, 3))
    for n, picture in enumerate(pictures):
        top, left = n // columns * step_y + GAP, n % columns * step_x
        canvas[top : top + height + 2 * FRAME, left : left + width + 2 * FRAME] = to_rgb(part.colour(n))
        canvas[top + FRAME : top + FRAME + height, left + FRAME : left + FRAME + width] = picture
        axis.text(left + width / 2 + FRAME, top - 1, part.notes[n], fontsize=5, ha="center", va="bottom")
        if spec.output == "angle":
            _arrow(axis, part.y[n], left + FRAME + width / 2, top + FRAME + height / 2, min(height, width))
        if spec.input == "vector":
            _curves(axis, (part.x[n], part.y[n]), left + FRAME, top + FRAME)
    axis.imshow(canvas, interpolation="nearest", zorder=0)
    axis.set_axis_off()


def _pictures(part: Part, spec: Spec) -> np.ndarray:
    """What fills the tiles, (N, height, width, 3) in 0..1."""
    if spec.input == "vector":
        return np.ones((len(part.x), SIDE, 2 * SIDE, 3))
    pixels = part.x / 255
    if spec.output == "regression":
        lower = (part.y.reshape(len(pixels), pixels.shape[1], -1, pixels.shape[3]) + 1) / 2
        pixels = np.concatenate([pixels, np.full_like(pixels[:, :, :1], 0.5), lower], axis=2)
    return np.broadcast_to(pixels.transpose(0, 2, 3, 1), (len(pixels), *pixels.shape[2:], 3))


def _arrow(axis: Axes, direction: np.ndarray, x: float, y: float, side: int) -> None:
    cos, sin = direction * 0.45 * side
    style = {
        "arrowstyle": "-|>",
        "color": PALETTE[1],
        "linewidth": 1.2,
        "mutation_scale": 6,
        "shrinkA": 0,
        "shrinkB": 0,
    }
    axis.annotate("", (x + cos, y - sin), (x, y), arrowprops=style)


def _curves(axis: Axes, curves: tuple[np.ndarray, np.ndarray], left: float, top: float) -> None:
    """Input and target, from -2 to 2 over the height of a tile."""
    for values, colour in zip(curves, PALETTE, strict=False):
        along = left + np.linspace(1, 2 * SIDE - 2, len(values))
        axis.plot(along, top + SIDE / 2 - values.clip(-2, 2) * SIDE / 4.2, color=colour, linewidth=0.6, zorder=1)


def _matrix(axis: Axes, part: Part) -> None:
    """Vectors as rows, with their codes beside them."""
    limit = float(np.abs(part.x).max()) or 1.0
    axis.imshow(part.x, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axis.set_yticks(range(len(part.x)), part.notes, fontsize=6)
    axis.set_xticks([])
