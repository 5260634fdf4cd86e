"""Arrays on disk that are built chunk by chunk, once, and then memory-mapped by every process that reads them.

A chunk is complete once it has its own name; the array is complete once its manifest is there. So a build that was killed
goes on where it was, and several processes may work on one build.
"""

import dataclasses
import errno
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

logger = logging.getLogger("mambacl")

MANIFEST, STARTED, ARRAY, PARTIAL = "manifest.json", "started.json", "array.bin", "array.partial"


class BuildStopped(RuntimeError):
    """A build that cannot go on now; what is done stays, and the same command continues. One line."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What became of one part of a source."""

    rows: np.ndarray
    """(k, ...) results of the images that could be read."""
    kept: np.ndarray
    """(m,) bool: which of the part's images these are."""
    faults: list[str]
    """Why each of the others was left out."""
    content: str
    """SHA-256 of what the rows were made from."""
    hashes: np.ndarray
    """(k,) uint64, of the images; empty where an older version made the chunk."""

    def pack(self) -> bytes:
        """As the bytes of an .npz file."""
        file = io.BytesIO()
        faults = np.array(self.faults, str)
        np.savez(
            file, rows=self.rows, kept=self.kept, faults=faults, content=np.array(self.content), hashes=self.hashes
        )
        return file.getvalue()

    @classmethod
    def unpack(cls, data: bytes) -> "Chunk":
        """What `pack` made."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            hashes = file["hashes"] if "hashes" in file.files else np.zeros(0, np.uint64)
            return cls(file["rows"], file["kept"], file["faults"].tolist(), str(file["content"]), hashes)


@dataclasses.dataclass(frozen=True)
class Store:
    """One array in its folder.

    key: what was asked for (settings, versions); it names the folder. source: the fingerprint of the files it is made from;
    an array from other files is built anew.
    """

    folder: Path
    key: dict[str, Any]
    source: str

    @classmethod
    def of(cls, name: str, key: dict[str, Any], source: str) -> "Store":
        """The store for a key, in MAMBACL_CACHE or the user's cache folder; `name` makes it easy to find."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return cls(cache_folder() / f"{name}-{digest[:16]}", key, source)

    def manifest(self) -> dict[str, Any] | None:
        """What is known of the array, or None where it is not complete or made from other files."""
        found = _read_json(self.folder / MANIFEST)
        return found if found and found["source"] == self.source and found["key"] == self.key else None

    def array(self) -> np.ndarray:
        """The complete array, mapped: its pages are shared by all processes. Writing to it changes a private copy."""
        manifest = self.manifest()
        assert manifest is not None
        shape = tuple(manifest["shape"])
        return np.memmap(self.folder / ARRAY, manifest["dtype"], "c", shape=shape)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all processes: for opening a build and closing it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BuildStopped(f"cache folder {self.folder} cannot be made: {error.strerror}") from None
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=5)
        except Timeout:
            logger.info("waiting for the process that builds %s", self.folder)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def begin(self) -> bool:
        """Drop what was built from other files, and note what is being built; True where something was dropped."""
        note = {"key": self.key, "source": self.source}
        if _read_json(self.folder / STARTED) == note:
            return False
        stale = [file for file in self.folder.iterdir() if file.name != "lock"]
        for file in sorted(stale, key=lambda file: file.name != MANIFEST):  # without its manifest the rest is nothing
            file.unlink()
        self._write(STARTED, json.dumps(note).encode())
        return bool(stale)

    def has(self, number: int) -> bool:
        """Whether a chunk is complete."""
        return (self.folder / _chunk_name(number)).is_file()

    def put(self, number: int, chunk: Chunk) -> None:
        """Keep a chunk. Raises BuildStopped where the disk is full."""
        self._write(_chunk_name(number), chunk.pack())

    def chunk(self, number: int) -> Chunk:
        """A complete chunk."""
        return Chunk.unpack((self.folder / _chunk_name(number)).read_bytes())

    def finish(
        self, chunks: int, visit: Callable[[Chunk], None], facts: Callable[[np.ndarray], dict[str, Any]]
    ) -> None:
        """Join the chunks into the array, in order, and write the manifest last.

        visit is called with each chunk in turn; facts with the mask (n,) of the images kept, and returns further fields of
        the manifest. It may write files beside the array.
        """
        kept, faults = [], []
        rows, shape, dtype = 0, (), ""
        with self._on_full_disk(), open(self.folder / PARTIAL, "wb") as array:
            for number in range(chunks):
                chunk = self.chunk(number)
                visit(chunk)
                array.write(np.ascontiguousarray(chunk.rows).data)
                kept.append(chunk.kept)
                faults += chunk.faults
                rows += len(chunk.rows)
                if len(chunk.rows):
                    shape, dtype = chunk.rows.shape[1:], chunk.rows.dtype.name
            array.flush()
            os.fsync(array.fileno())
        manifest = {"key": self.key, "source": self.source, "shape": [rows, *shape], "dtype": dtype, "faults": faults}
        manifest |= facts(np.concatenate(kept))
        (self.folder / PARTIAL).rename(self.folder / ARRAY)
        self._write(MANIFEST, json.dumps(manifest, indent=1).encode())
        for number in range(chunks):
            (self.folder / _chunk_name(number)).unlink()

    def _write(self, name: str, content: bytes) -> None:
        """Write a file that has its name only when all of it is there."""
        partial = self.folder / f"{name}.tmp"
        try:
            with self._on_full_disk(), open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        partial.rename(self.folder / name)

    @contextmanager
    def _on_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            (self.folder / PARTIAL).unlink(missing_ok=True)
            free = shutil.disk_usage(self.folder).free
            raise BuildStopped(
                f"no space left in {self.folder} ({free / 2**20:.0f} MiB free); what is done is kept: "
                "make room or set MAMBACL_CACHE, and the same command goes on"
            ) from None


def cache_folder() -> Path:
    """Where caches are kept; on a cluster MAMBACL_CACHE names a folder that all nodes share."""
    return Path(os.environ.get("MAMBACL_CACHE") or platformdirs.user_cache_dir("mambacl"))


def _chunk_name(number: int) -> str:
    return f"chunk-{number:06d}.npz"


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
