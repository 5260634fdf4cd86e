"""What MLflow loads for a registered model: no pickle, only the config and safetensors whose hashes the manifest holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mambacl.learners.registry import build as build_learner
from mambacl.platform.machine import subnormals_as_zero
from mambacl.platform.training.checkpoint import Checkpoint


class Served:
    """A learner that answers queries for a support set."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        if fault := checkpoint.fault():
            raise ValueError(f"{checkpoint.path}: refused, {fault}")
        self.learner = build_learner(checkpoint.config.learner, checkpoint.progress.spec).eval()
        self.learner.load_state_dict(checkpoint.weights)

    @subnormals_as_zero()
    @torch.inference_mode()
    def predict(self, data: Mapping[str, np.ndarray], params: Any = None) -> np.ndarray:
        """data: support_x (B, T, *shape), support_y (B, T) codes or (B, T, size) values, query_x (B, M, *shape), as
        in an Episode. Returns logits (B, M, V) or values (B, M, size)."""
        missing = {"support_x", "support_y", "query_x"} - set(data)
        if missing:
            raise ValueError(f"{sorted(missing)[0]}: missing; a prediction needs support_x, support_y and query_x")
        support_x, support_y, query_x = (
            torch.as_tensor(np.asarray(data[name])) for name in ("support_x", "support_y", "query_x")
        )
        state = self.learner.observe(self.learner.init_state(len(support_x)), support_x, support_y)
        return self.learner.predict(state, query_x).prediction.numpy()


def _load_pyfunc(path: str) -> Served:
    """MLflow's hook; `path` is the model's folder."""
    return Served(Checkpoint(path=Path(path)))
