"""Linear attention mixer (Katharopoulos et al., 2020, "Transformers are RNNs").

    y_q = sum_t (phi(q) . phi(k_t)) v_t / sum_t phi(q) . phi(k_t),        phi(x) = elu(x) + 1
Shapes: B episodes, L tokens, D width, E inner width, H heads, K key size, V value size.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from mambacl.learners.fused import Linear
from mambacl.learners.learner import Normalisation
from mambacl.learners.mixers.matrix import Convolve, NormalisedMixer, split_heads
from mambacl.learners.mixers.matrix_config import MatrixConfig
from mambacl.learners.mixers.mixer import start_alike
from mambacl.learners.scan.writes import Writes


class LinearAttentionMixer(NormalisedMixer):
    """Every token reads all tokens before it and itself, from a state of fixed size."""

    normalisation: ClassVar[Normalisation] = "linear"

    def __init__(self, config: MatrixConfig, key_width: int | None = None) -> None:
        """key_width: of a head before the features, by default as many as these."""
        super().__init__(config, convolved=config.width)
        self.projected = keys = self.heads * (key_width or self.keys)
        self.in_proj = Linear(config.width, 2 * keys + self.inner)
        self.out_proj = Linear(self.inner, config.width)
        start_alike(self.in_proj.weight[:keys], self.in_proj.weight[keys : 2 * keys])
        start_alike(self.in_proj.bias[:keys], self.in_proj.bias[keys : 2 * keys])

    def writes(self, x_BLD: Tensor, convolve: Convolve, reads: bool) -> tuple[Writes, None]:
        parts = self.in_proj(convolve(x_BLD, False)).split([self.projected, self.projected, self.inner], -1)
        q, k, v = (split_heads(part, self.heads) for part in parts)
        query = self.features(q, query=True) if reads else None
        return Writes(query, self.features(k, query=False), v, log_decay=None, strength=None), None

    def features(self, x_BHLP: Tensor, query: bool) -> Tensor:
        """phi(x) > 0. query: whether it multiplies all keys of a row alike, so that its scale does not matter."""
        return F.elu(x_BHLP) + 1

    def leave(self, y_BLE: Tensor, x_BLD: Tensor, beside: Tensor | None) -> Tensor:
        return self.out_proj(y_BLE)
