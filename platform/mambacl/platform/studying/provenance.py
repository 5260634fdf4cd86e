"""What a study was made with: versions and machines."""

import platform
from importlib.metadata import version

import ray

PACKAGES = ("mambacl", "torch", "ray", "mlflow", "optuna")


def made_with() -> dict[str, str]:
    """Versions and the cluster's machines, within a Ray session."""
    resources = ray.cluster_resources()
    kinds = [name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")]
    counts = {"nodes": len(ray.nodes()), "CPUs": resources.get("CPU", 0), "GPUs": resources.get("GPU", 0)}
    machines = ", ".join(f"{what}: {count:g}" for what, count in counts.items())
    versions = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **versions, "device": " ".join([machines, *kinds, platform.machine()])}
