"""What a step does beside its recurrences, each in one pass over memory on the CPU, and in plain torch elsewhere.

Legend: B episodes, L tokens, E channels, W filter width, R rows.

    linear      products of matrices by the faster of two libraries (linear.py)
    short_conv  depthwise causal convolution, with the SiLU behind it (short_conv.py)
    gate        y * silu(z) (gate.py)
    softplus    of a sum with a bias (softplus.py)
    rms_norm    root-mean-square normalisation (norm.py)
    conv        convolution of images, 3 x 3 with stride 2, behind group normalisation and ReLU (conv.py)
    group_norm  group normalisation (group_norm.py)

Each stands beside its definition in plain torch, which runs wherever the fast path does not: on GPUs, in other dtypes than
float32 and float64, under torch.func and torch.compile, without numba, and for gradients of gradients.
"""

from mambacl.learners.fused.conv import conv
from mambacl.learners.fused.gate import gate
from mambacl.learners.fused.group_norm import group_norm
from mambacl.learners.fused.linear import Linear, linear
from mambacl.learners.fused.norm import RMSNorm, rms_norm
from mambacl.learners.fused.short_conv import short_conv
from mambacl.learners.fused.softplus import softplus

__all__ = ["Linear", "RMSNorm", "conv", "gate", "group_norm", "linear", "rms_norm", "short_conv", "softplus"]
