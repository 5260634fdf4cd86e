"""How many trainings a cluster has room for at a time."""

import ray

from mambacl.platform.config import ResourcesConfig
from mambacl.tasks.config import ConfigError


def places_for(need: ResourcesConfig) -> int:
    """Trainings that fit beside each other. Raises ConfigError where not even one does."""
    have = ray.cluster_resources()
    places: list[float] = [have.get("CPU", 0) // (need.cpus * need.workers)]
    if need.gpus:
        places.append(have.get("GPU", 0) // (need.gpus * need.workers))
    most = int(min(places))
    if most < 1:
        raise ConfigError(
            f"resources: {need.workers} workers of {need.cpus} CPUs and {need.gpus:g} GPUs do not fit; "
            f"the cluster has {have.get('CPU', 0):g} CPUs and {have.get('GPU', 0):g} GPUs"
        )
    return most
