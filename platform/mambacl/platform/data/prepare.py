"""Image caches and frozen features built with Ray Data: every core or GPU of the cluster works, this process writes.

Workers need to see the source alone. Only the driver writes the cache, so it may lie on the driver's disk; on a cluster of
several nodes MAMBACL_CACHE names a folder that all of them see, or each node makes its own when a run first reads it.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mambacl.platform.console import console
from mambacl.platform.session import session
from mambacl.platform.training.ray_worker import use_threads
from mambacl.tasks.bank import recipe_of
from mambacl.tasks.config import ConfigError
from mambacl.tasks.features import Encode
from mambacl.tasks.images_config import ImageFamilyConfig
from mambacl.tasks.prepare import Build, Recipe, Work
from mambacl.tasks.registry import TaskConfig
from mambacl.tasks.sources.files import SourceAway
from mambacl.tasks.sources.listing import Part
from mambacl.tasks.store import Chunk

PLAIN = 10.0
"""Seconds between lines where standard output is no terminal."""


def prepare(tasks: Sequence[TaskConfig], address: str | None) -> None:
    """Build what the task families will read and have not got yet. Does nothing, and starts no Ray, where all is there.

    Raises ConfigError for data that cannot be used, SourceAway or BuildStopped where the same command may go on later.
    """
    for task in tasks:
        recipe = recipe_of(task) if isinstance(task, ImageFamilyConfig) else None
        if recipe is None or recipe.complete():
            continue
        with session(address), recipe.store.locked():
            if not recipe.complete():
                build_on_cluster(recipe)


def build_on_cluster(recipe: Recipe) -> None:
    """Make an array with the cluster's processors, from where an earlier build ended. Needs Ray and the store's lock."""
    build = Build(recipe)
    with Progress(
        TextColumn("preparing {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f}/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        bar = progress.add_task(recipe.store.folder.name, total=build.images, completed=build.images_done(), rate=0)
        told = time.monotonic()
        for number, chunk in computed(build):
            build.put(number, chunk)
            progress.update(bar, completed=build.images_done(), rate=build.rate())
            if not console.is_terminal and time.monotonic() - told > PLAIN:
                told = time.monotonic()
                console.print(
                    f"prepared {build.images_done():,} of {build.images:,} images, {build.rate():.0f} a second"
                )
    build.finish()
    console.print(
        f"prepared {build.images:,} images, {build.rate():.0f} a second, in {recipe.store.folder}", soft_wrap=True
    )


def computed(build: Build) -> Iterator[tuple[int, Chunk]]:
    """The missing chunks, in the order in which they are done. Ray Data bounds how many wait to be written."""
    if not build.missing:
        return
    cluster = ray.cluster_resources()
    gpus = int(cluster.get("GPU", 0)) if isinstance(build.recipe.work, Encode) else 0
    workers = min(gpus or int(cluster["CPU"]), len(build.missing))
    cpus = max(1, int(cluster["CPU"]) // workers) if gpus else 1
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = ray.data.from_items(
        [{"number": number, "part": build.part(number)} for number in build.missing],
        override_num_blocks=len(build.missing),
    )
    chunks = parts.map(
        Worker,  # type: ignore[arg-type]
        fn_constructor_args=(build.recipe.work, cpus),
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=cpus,
        num_gpus=1 if gpus else 0,
    )
    for row in chunks.iter_rows():
        if row["error"]:
            raise FAULTS[row["error"]](row["message"])
        yield row["number"], Chunk.unpack(row["chunk"])


FAULTS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ConfigError, SourceAway)}
"""What a worker reports in one line rather than as a traceback of Ray's."""


class Worker:
    """An actor that works on one part after another; it loads an encoder once."""

    def __init__(self, work: Work, cpus: int) -> None:
        self.work = work
        use_threads(cpus)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part: Part = row["part"]
        answer = {"number": row["number"], "chunk": b"", "error": "", "message": ""}
        try:
            return answer | {"chunk": self.work(part).pack()}
        except tuple(FAULTS.values()) as error:
            return answer | {"error": type(error).__name__, "message": str(error)}
