"""Devices whose hours a study is estimated in."""

from typing import Literal

Device = Literal["cpu", "a100", "h100", "h200"]

SUSTAINED: dict[Device, float] = {"cpu": 40e9, "a100": 2.5e12, "h100": 5.5e12, "h200": 5.5e12}
"""Floating-point operations a second that meta-training gets out of a device. cpu is one core: the preset `omniglot` had 55 to 90 G of an
AMD EPYC, and an Intel Xeon takes twice the time. GPUs are not measured: by its arithmetic a transformer of width 512 would take one
to two hours of an H100 for 50,000 steps of 16 episodes, and an A100 moves half as many bytes a second."""
