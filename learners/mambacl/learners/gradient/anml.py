"""ANML (Beaulieu et al., 2020, "Learning to Continually Learn"), as in Lee et al., 2023.

Shapes: B episodes, T support examples, M queries, V label codes or values, F features.
"""

import math

import torch
from torch import Tensor, nn

from mambacl.learners.encoders.encoders import as_float, flat_size
from mambacl.learners.gradient.configs import AnmlConfig
from mambacl.learners.gradient.inner import Fast, follow
from mambacl.learners.learner import Learner, Output, State, bounded
from mambacl.tasks.episode import Spec


class Anml(Learner):
    """All weights of the prediction network take a gradient step an example; a second network, which does not, gates its
    features example by example. Starts, gate and step size are meta-trained through all the steps (second order)."""

    def __init__(self, config: AnmlConfig, spec: Spec) -> None:
        super().__init__(spec)
        self.config = config
        features, fast, gate = _networks(config, spec)
        self.fast = fast
        self.head = nn.Linear(features, spec.size)
        self.gate = gate
        self.log_rate = nn.Parameter(torch.tensor(math.log(config.learning_rate)))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def init_state(self, batch_size: int) -> State:
        start = {f"fast.{name}": value for name, value in self.fast.named_parameters()}
        start |= {f"head.{name}": value for name, value in self.head.named_parameters()}
        return {name: value.expand(batch_size, *value.shape) for name, value in start.items()}

    def observe(self, state: State, x: Tensor, y: Tensor) -> State:
        x, y = self.chunk(x, y)
        return follow(self.predictions, state, x, y, self.spec, self.log_rate.exp())

    def predict(self, state: State, x: Tensor) -> Output:
        return Output(self.predictions(state, x))

    def state_floats(self, examples: int) -> int:
        return sum(p.numel() for p in [*self.fast.parameters(), *self.head.parameters()])

    def predictions(self, fast: Fast, x: Tensor) -> Tensor:
        """Predictions (B, T, V) with each episode's own weights."""
        x = as_float(x, self.log_rate.dtype)
        gate_BTF = self.gate(x.flatten(0, 1)).unflatten(0, x.shape[:2]).sigmoid()

        def one(weights: Fast, x: Tensor, gate_TF: Tensor) -> Tensor:
            body = {name.removeprefix("fast."): value for name, value in weights.items() if name.startswith("fast.")}
            features_TF = torch.func.functional_call(self.fast, body, (x,))
            return bounded((features_TF * gate_TF) @ weights["head.weight"].T + weights["head.bias"], self.spec)

        return torch.func.vmap(one)(fast, x, gate_BTF)


def _networks(config: AnmlConfig, spec: Spec) -> tuple[int, nn.Module, nn.Module]:
    """Number of features, the body of the prediction network, and the gate's network of the same shape.

    The gate's layers are normalised, example by example; those of the prediction network are not.
    """
    if spec.input != "image":
        inputs, U = int(torch.Size(spec.shape).numel()), config.hidden
        return U, _mlp(inputs, U, normalised=False), _mlp(inputs, U, normalised=True)
    features = flat_size("learner", spec, config.channels, config.first_stride)
    return features, _cnn(spec, config, normalised=False), _cnn(spec, config, normalised=True)


def _cnn(spec: Spec, config: AnmlConfig, normalised: bool) -> nn.Module:
    layers, before, stride = [], spec.shape[0], config.first_stride
    for after in config.channels:
        layers.append(nn.Conv2d(before, after, 3, stride=stride, padding=1))
        layers += [nn.GroupNorm(after // 4, after), nn.ReLU()] if normalised else [nn.ReLU()]
        before, stride = after, 2
    return nn.Sequential(*(layers[:-1] if normalised else layers), nn.Flatten())


def _mlp(inputs: int, units: int, normalised: bool) -> nn.Module:
    layers, before = [], inputs
    for _ in range(3):
        layers.append(nn.Linear(before, units))
        layers += [nn.LayerNorm(units), nn.ReLU()] if normalised else [nn.ReLU()]
        before = units
    return nn.Sequential(*(layers[:-1] if normalised else layers))
