"""Parameters that weight decay is not to fall on."""

from torch import Tensor, nn


def undecayed(values: Tensor) -> nn.Parameter:
    """A parameter with no neutral value at 0, where weight decay would pull it."""
    parameter = nn.Parameter(values)
    parameter.no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
