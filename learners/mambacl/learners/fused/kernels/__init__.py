"""Compiled loops of `mambacl.learners.fused`. A file holds all that its kernels compile: numba's cache does not notice changes of
files that are imported there."""

from mambacl.learners.fused.kernels.conv import conv, conv_adjoint, short_conv, short_conv_adjoint
from mambacl.learners.fused.kernels.passes import (
    gate,
    gate_adjoint,
    group_norm,
    group_norm_adjoint,
    rms_norm,
    rms_norm_adjoint,
    softplus,
    softplus_adjoint,
    transpose,
)

__all__ = [
    "conv",
    "conv_adjoint",
    "gate",
    "gate_adjoint",
    "group_norm",
    "group_norm_adjoint",
    "rms_norm",
    "rms_norm_adjoint",
    "short_conv",
    "short_conv_adjoint",
    "softplus",
    "softplus_adjoint",
    "transpose",
]
