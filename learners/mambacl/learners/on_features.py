"""A learner on the features of an encoder that was trained with another one.

Shapes: B episodes, T examples, M queries, F features.
"""

from collections.abc import Callable

from torch import Tensor, nn

from mambacl.learners.features import noisy
from mambacl.learners.learner import Learner, Output, State
from mambacl.tasks.episode import Episode, Spec


class OnFeatures(Learner):
    """Encodes every example to a vector, and leaves the rest to a learner of vectors. The encoder stays as it is."""

    def __init__(self, encoder: nn.Module, width: int, spec: Spec, build: Callable[[Spec], Learner]) -> None:
        """encoder: (n, *spec.shape) -> (n, F); width: F; build: makes the learner of vectors."""
        super().__init__(spec)
        self.encoder = encoder.requires_grad_(False)
        self.learner = build(spec.model_copy(update={"input": "vector", "shape": (width,)}))

    def init_state(self, batch_size: int) -> State:
        return self.learner.init_state(batch_size)

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        x, y = self.chunk(x, y)
        return self.learner.observe(state, self._encode(x), y)

    def predict(self, state: State, x: Tensor) -> Output:
        return self.learner.predict(state, self._encode(x))

    def inputs(self, episode: Episode) -> tuple[Tensor, Tensor]:
        support, query = self._encode(episode.support_x), self._encode(episode.query_x)
        return noisy(support, query, episode, "a reference on features")

    def absorb(self, state: State, x: Tensor, y: Tensor) -> State:
        return self.learner.observe(state, x, y)

    def answer(self, state: State, x: Tensor) -> Tensor:
        return self.learner.predict(state, x).prediction

    def state_floats(self, examples: int) -> int:
        return self.learner.state_floats(examples)

    def _encode(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
