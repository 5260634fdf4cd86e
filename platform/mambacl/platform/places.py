"""How many trainings a cluster has room for at a time; what it can never run is refused at once."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import ray
import ray._private.state

from mambacl.platform.config import ResourcesConfig
from mambacl.tasks.config import ConfigError

logger = logging.getLogger("mambacl")

Node = Mapping[str, float]
"""What a node offers, by Ray's names: CPU, GPU, accelerator_type:A100."""

KIND = "accelerator_type:"
GROUP = "ray.io/node-group"
"""Label of nodes that KubeRay or `ray up` started, and of no others."""
SOME = 256
"""Nodes of a group that may grow without end."""


def places_for(need: ResourcesConfig) -> int:
    """Trainings that fit beside each other, on the nodes that there are or that an autoscaler can add.

    Raises ConfigError where not even one ever fits, with the nodes that there are.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    may_grow = any(GROUP in node["Labels"] for node in nodes)
    return places_among([node["Resources"] for node in nodes], need, may_grow, grown())


def places_among(nodes: Sequence[Node], need: ResourcesConfig, may_grow: bool, largest: Sequence[Node] = ()) -> int:
    """As places_for. largest: all nodes that there can be, where an autoscaler has said so; may_grow: whether there can be
    more where none has."""
    now = places_on(nodes, need)
    if now < 1 and may_grow and not largest:
        logger.warning(
            "resources: %s do not fit on nodes of %s; waiting for an autoscaler", _wanted(need), _listed(nodes)
        )
        return 1
    most = max(now, places_on(largest, need))
    if most < 1:
        raise ConfigError(
            f"resources: {_wanted(need)} do not fit; the cluster has nodes of {_listed(largest or nodes)}"
        )
    return most


def grown() -> list[Node]:
    """All nodes that there can be once an autoscaler has added what it can; none where none has said so."""
    known = ray._private.state.state.get_cluster_config()
    return [
        dict(group.resources)
        for group in (known.node_group_configs if known else ())
        for _ in range(SOME if group.max_count < 0 else group.max_count)
    ]


def places_on(nodes: Sequence[Node], need: ResourcesConfig) -> int:
    """Trainings that fit beside each other on empty nodes."""
    room = [_workers_on(node, need) for node in nodes]
    if need.placement == "STRICT_PACK":
        return sum(workers // need.workers for workers in room)
    most = sum(room) // need.workers
    if need.placement == "STRICT_SPREAD":  # so many trainings share a node at most
        while most and sum(min(workers, most) for workers in room) < most * need.workers:
            most -= 1
    return most


def _workers_on(node: Node, need: ResourcesConfig) -> int:
    """Workers that fit on a node."""
    if need.accelerator and KIND + need.accelerator not in node:
        return 0
    workers = int(node.get("CPU", 0) // need.cpus)
    if need.gpus:
        gpus = node.get("GPU", 0)
        # Shares of a GPU lie within one.
        workers = min(workers, int(gpus // need.gpus if need.gpus >= 1 else gpus * int(1 / need.gpus + 1e-9)))
    return workers


def _wanted(need: ResourcesConfig) -> str:
    workers = f"{need.workers} worker{'s' if need.workers > 1 else ''}"
    return f"{workers} of {_offer(need.cpus, need.gpus, need.accelerator)} ({need.placement})"


def _listed(nodes: Sequence[Node]) -> str:
    """Kinds of nodes and how many there are of each, as in `2 CPUs (3 of them)`."""
    kinds = Counter(
        _offer(
            node.get("CPU", 0),
            node.get("GPU", 0),
            next((name.removeprefix(KIND) for name in node if name.startswith(KIND)), None),
        )
        for node in nodes
    )
    return "; ".join(f"{kind}{f' ({count} of them)' if count > 1 else ''}" for kind, count in sorted(kinds.items()))


def _offer(cpus: float, gpus: float, accelerator: str | None) -> str:
    parts = [f"{cpus:g} CPU{'s' if cpus != 1 else ''}"]
    if gpus or accelerator:
        parts.append(f"{gpus:g} GPU{'s' if gpus != 1 else ''}{f' {accelerator}' if accelerator else ''}")
    return " and ".join(parts)
