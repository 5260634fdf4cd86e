"""Which kernel of a recurrence runs on a device, and why."""

import dataclasses
import importlib
import logging
from functools import cache
from types import ModuleType

import torch

logger = logging.getLogger("mambacl")


class KernelError(RuntimeError):
    """The kernel asked for cannot run here; one line that says how to get it."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One implementation of a recurrence: a module of this package, imported when it is needed."""

    module: str
    device: str | None
    """The one type of device it runs on; None for any."""
    get: str = ""
    """How to get what it needs."""


@dataclasses.dataclass(frozen=True)
class Recurrence:
    """The kernels of one recurrence. Which one is live is said once per process and device in the log `mambacl`."""

    name: str
    kernels: tuple[tuple[str, Kernel], ...]
    """By name, the fastest first; the last one runs anywhere."""

    def describe(self, device: torch.device | str, kernel: str = "auto") -> tuple[str, str]:
        """Name of the kernel that runs on a device, and the reason why it is this one.

        Raises:
            ValueError: unknown kernel.
            KernelError: the kernel asked for cannot run there; says how to get it.
        """
        device = torch.device(device).type
        kernels = dict(self.kernels)
        if kernel != "auto":
            if kernel not in kernels:
                raise ValueError(f'unknown kernel "{kernel}": choose "auto" or one of {", ".join(kernels)}')
            if obstacle := self.obstacle(kernel, device):
                raise KernelError(f"kernel {kernel} cannot run on {device}: {obstacle}")
            return kernel, "asked for"
        obstacles = []
        for name, candidate in self.kernels:
            if candidate.device == device:
                if not (obstacle := self.obstacle(name, device)):
                    return name, f"fastest on {device}"
                obstacles.append(obstacle)
        anywhere = next(name for name, candidate in self.kernels if candidate.device is None)
        if anywhere != "reference" and not obstacles:
            return anywhere, f"fastest on {device}"
        return anywhere, f"slow: {obstacles[0] if obstacles else f'there is no kernel for {device}'}"

    def obstacle(self, kernel: str, device: str) -> str | None:
        """What keeps a kernel from running on a type of device, and how to get it; None if nothing does."""
        chosen = dict(self.kernels)[kernel]
        if chosen.device not in (None, device):
            return f"{kernel} runs on {'the CPU' if chosen.device == 'cpu' else 'an NVIDIA GPU'} only"
        try:
            module = _import(chosen.module)
        except ImportError as error:
            return f"{error}; {chosen.get}"
        missing = module.missing() if hasattr(module, "missing") else None
        return f"{missing}; {chosen.get}" if missing else None

    @cache  # noqa: B019  # recurrences are made once a process
    def module(self, device: str, kernel: str) -> ModuleType:
        """The module to call; what runs is announced when a process first needs it."""
        name, reason = self.describe(device, kernel)
        level = logging.WARNING if reason.startswith("slow") else logging.INFO
        logger.log(level, "%s on %s: %s kernel (%s)", self.name, device, name, reason)
        return _import(dict(self.kernels)[name].module)


def _import(module: str) -> ModuleType:
    return importlib.import_module(f"mambacl.learners.scan.{module}")
