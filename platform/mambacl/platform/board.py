"""The board: a small actor where training workers post how far they are, and where the driver asks them to end."""

from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(num_cpus=0, max_task_retries=-1)
class Board:
    """The newest facts about each run, by the name of its folder. Who cannot reach it for a while tries again: nothing here does
    harm twice."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.pruned: set[str] = set()
        self.stopping = False

    def post(self, run: str, facts: dict[str, Any]) -> bool:
        """Update a run's facts; returns whether it is to write a checkpoint and end."""
        self.runs.setdefault(run, {}).update(facts)
        return self.stopping or run in self.pruned

    def read(self) -> dict[str, dict[str, Any]]:
        return self.runs

    def clear(self) -> None:
        """Forget the runs of earlier work."""
        self.runs, self.pruned = {}, set()

    def prune(self, run: str) -> None:
        """Ask one run to write a checkpoint and end."""
        self.pruned.add(run)

    def stop(self) -> None:
        """Ask all runs to write a checkpoint and end."""
        self.stopping = True


def open_board() -> ActorHandle:
    """A board on the driver's node: lost with it, and with no other."""
    here = ray.get_runtime_context().get_node_id()
    strategy = NodeAffinitySchedulingStrategy(here, soft=False)
    return Board.options(scheduling_strategy=strategy).remote()  # type: ignore[attr-defined]


def read(board: ActorHandle) -> dict[str, dict[str, Any]]:
    """The facts that the board holds."""
    return ray.get(board.read.remote())  # type: ignore[return-value]


def run_name(run: Path) -> str:
    """The name under which a run's folder stands on the board."""
    return run.name
