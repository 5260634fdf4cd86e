"""The driver's side of long work: it runs in a thread, while the main thread draws progress, delivers to MLflow, and listens
for Ctrl-C."""

import concurrent.futures
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import ray
from ray.actor import ActorHandle
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mambacl.platform.board import read
from mambacl.platform.console import console
from mambacl.platform.tracking.store import Store

T = TypeVar("T")
logger = logging.getLogger("mambacl")

REFRESH = 0.5
"""Seconds between looks at the board."""
PLAIN = 10.0
"""Seconds between lines where standard output is no terminal."""
DELIVERY = 3.0
"""Seconds between deliveries to MLflow."""
LAST_WORDS = 60.0
"""Seconds that workers get to write a checkpoint after Ctrl-C."""


class Delivery:
    """Brings MLflow up to date in a thread of its own, so that a store that is away or slow holds up nothing."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.folders: dict[Path, None] = {}
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "delivery")
        self.pending: concurrent.futures.Future | None = None
        self.due = 0.0
        self.away = False

    def add(self, folder: Path) -> None:
        """Follow a run's folder until it is closed and delivered."""
        self.folders[folder] = None

    def tick(self) -> None:
        """Deliver if it is time and the last delivery is over."""
        if (self.pending is None or self.pending.done()) and time.monotonic() >= self.due:
            self.due = time.monotonic() + DELIVERY
            self.pending = self.thread.submit(self._deliver_all)

    def finish(self) -> bool:
        """Deliver what is left; False, with advice, where the store is away. Nothing is lost: it is all in the folders."""
        if self.pending:
            self.pending.result()
        self._deliver_all()
        if self.away:
            logger.warning(
                "MLflow at %s is away; runs are complete on disk, and `mambacl sync` delivers them later",
                self.store.uri,
            )
        return not self.away

    def _deliver_all(self) -> None:
        for folder in list(self.folders):
            try:
                if self.store.deliver(folder).delivered:
                    del self.folders[folder]
            except Exception as error:
                if not self.away:
                    logger.warning("MLflow at %s is away (%s); training goes on", self.store.uri, _first_line(error))
                self.away = True
                return
        if self.away:
            logger.warning("MLflow at %s is back", self.store.uri)
        self.away = False


def attend(
    work: Callable[[], T], board: ActorHandle, delivery: Delivery, on_stop: Callable[[], None] = lambda: None
) -> T:
    """Run `work` in a thread and return what it returns, with progress on the screen.

    Ctrl-C calls `on_stop`, asks the runs on the board to write a checkpoint and end, waits for them, and raises
    KeyboardInterrupt.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    ray.get(board.clear.remote())
    threading.Thread(target=run, name="work", daemon=True).start()  # a daemon: a second Ctrl-C leaves at once
    with _view(board) as show:
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=REFRESH)
                show()
                delivery.tick()
        except KeyboardInterrupt:
            console.print("stopping: runs write a checkpoint first; Ctrl-C again leaves at once")
            on_stop()
            ray.get(board.stop.remote())
            concurrent.futures.wait([future], timeout=LAST_WORDS)
            raise
    return future.result()


@contextmanager
def _view(board: ActorHandle) -> Iterator[Callable[[], None]]:
    """A function that shows the board: a live table on a terminal, a line a run now and then elsewhere."""
    if not console.is_terminal:
        printed: dict[str, tuple[float, int]] = {}

        def lines() -> None:
            for name, facts in read(board).items():
                when, step = printed.get(name, (0.0, -1))
                over = facts["step"] >= facts["of"]
                if facts["step"] != step and (over or time.monotonic() - when >= PLAIN):
                    printed[name] = (time.monotonic(), facts["step"])
                    console.print(_line(name, facts))

        yield lines
        lines()
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:

        def draw() -> None:
            live.update(_table(read(board)))

        yield draw
        draw()


def _line(name: str, facts: dict) -> str:
    parts = [f"{name}  step {facts['step']}/{facts['of']}"]
    parts += [f"{label} {facts[key]:.3f}" for label, key in SHOWN.items() if key in facts]
    return "  ".join(parts)


SHOWN = {"loss": "train/loss", "selectivity": "train/selectivity", "meta-val score": "meta_val/score"}


def _table(rows: dict[str, dict]) -> RenderableType:
    drawn = Table(box=None, pad_edge=False)
    for column in ("run", "", "step", *SHOWN):
        drawn.add_column(column, justify="left" if column in ("run", "") else "right")
    for name, facts in rows.items():
        bar = ProgressBar(total=facts["of"], completed=facts["step"], width=20)
        figures = [f"{facts[key]:.3f}" if key in facts else "" for key in SHOWN.values()]
        drawn.add_row(name, bar, f"{facts['step']}/{facts['of']}", *figures)
    return Group(drawn)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
