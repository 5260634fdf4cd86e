"""Multi-query associative recall, the sanity test of sequence learners (Arora et al., 2023, "Zoology"): what is written under a
key can be read under it. Nothing has to be learned about the keys, which are new and orthogonal in every episode.

A key that gets a new label code later in the stream is two tasks: the old one is a distractor, and a learner that cannot
overwrite answers it as often. Shapes: G tasks drawn, R examples drawn of each, F numbers of a key.
"""

from collections.abc import Sequence

import numpy as np
import torch

from mambacl.tasks.episode import Episode, Spec
from mambacl.tasks.family import UNLIMITED, Family
from mambacl.tasks.randomness import Split, first, generator
from mambacl.tasks.recall_config import RecallConfig
from mambacl.tasks.stream import lay_out


class RecallFamily(Family):
    """Episodes of keys and label codes; the splits are disjoint streams of one generator."""

    config: RecallConfig

    def __init__(self, config: RecallConfig) -> None:
        super().__init__(config)
        self.spec = Spec(
            input="vector",
            shape=(config.dimensions,),
            output=config.output,
            size=config.codes,
            digest=f"recall-1-{config.seed}-{config.dimensions}-{config.reassign}{self.variant}",
        )

    def limits(self, split: Split) -> dict[str, int]:
        config = self.config
        most = config.dimensions - config.stream.distractors - config.stream.open_set
        while most > 1 and self.varied(tasks=most).config.streamed > config.codes:
            most -= 1
        return {"tasks": most, "images": UNLIMITED}

    def episodes(self, split: Split, indices: Sequence[int]) -> Episode:
        config = self.check(split).config
        layout = lay_out(config, split, indices, replaced=config.reassigned)
        draws = [self._draw(split, index) for index in indices]
        x, y = (torch.from_numpy(layout.pick(np.stack(part))) for part in zip(*draws, strict=True))
        return self.assemble(layout, x.float(), y, split, indices)

    def _draw(self, split: Split, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Keys (G R, F) of squared length F, and label codes (G R,)."""
        config, new = self.config, self.config.streamed - self.config.reassigned
        R = config.shot_range[1] + config.queries
        rng = generator(config.seed, split, index)
        code = np.concatenate([first(rng.random(config.codes), config.streamed), np.full(config.stream.open_set, -1)])
        directions = np.linalg.qr(rng.normal(size=(config.keys, config.dimensions)).T)[0].T
        keys = directions * np.sqrt(config.dimensions)
        whose = np.concatenate([np.arange(new), np.arange(config.reassigned), np.arange(new, config.keys)])
        return keys[whose].repeat(R, axis=0), code.repeat(R)
