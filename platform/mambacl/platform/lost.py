"""Nodes that the cluster has lost or cannot reach: what ended with one of them is not to blame for it."""

import re
from pathlib import Path

import ray


class LostNodes:
    """Tells each run of the nodes that were lost since it last asked."""

    def __init__(self) -> None:
        self.before = _lost()
        self.known: dict[Path, set[str]] = {}

    def another(self, run: Path) -> bool:
        """Whether a node was lost since the run last asked, or since this was made. Ray finds the node dead before it says
        so of any actor on it. Each loss is an excuse once, even where the run was elsewhere."""
        before, self.known[run] = self.known.get(run, self.before), _lost()
        return bool(self.known[run] - before)


def out_of_reach(words: str) -> bool:
    """Whether these are Ray's words for an actor that it could not reach but does not know dead: ActorUnavailableError, of which
    Ray Tune hands on no more. So it is when a network comes back with its connections reset."""
    return bool(re.search(r"The actor \w+ is unavailable: ", words))


def _lost() -> set[str]:
    """Ids of all nodes that have left; none where there is no cluster."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]} if ray.is_initialized() else set()
