"""Files of local folders and of fsspec URLs such as s3://bucket/folder, alike."""

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import fsspec
import tenacity

from mambacl.tasks.config import ConfigError

T = TypeVar("T")

TRIES = 4
PAUSE = 1.0
"""Seconds before the second try of a read from a URL; each further pause is twice as long."""

FINAL = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, EOFError, tarfile.TarError)
"""Errors that trying again does not mend: they are about the file, not about the way to it."""


class SourceAway(ConnectionError):
    """A URL that still does not answer after several tries; one line."""


class File(NamedTuple):
    """One file: its name below the folder that was listed (or its whole path), size, and when or as what it was written."""

    name: str
    size: int
    stamp: str


def is_url(path: str) -> bool:
    """Whether a path names something for fsspec rather than a local file."""
    return "://" in path


def absolute(path: str) -> str:
    """A path that means the same in every process; URLs as they are."""
    return path if is_url(path) else str(Path(path).expanduser().resolve())


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a path or URL, and the path inside it. Raises ConfigError where nothing can open it.

    Where fsspec lacks the package for a protocol (s3fs, gcsfs), pyarrow's own client is used.
    """
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError as error:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import FileSystem

        try:
            system, inner = FileSystem.from_uri(path)
        except Exception:
            raise ConfigError(f"task.path: {path} cannot be opened: {error}") from None
        return ArrowFSWrapper(system), inner
    except ValueError as error:
        raise ConfigError(f"task.path: {path} cannot be opened: {error}") from None


def patiently(action: Callable[[], T], path: str) -> T:
    """The action's result; where the path is a URL, after up to TRIES tries. Raises SourceAway when all of them failed."""
    if not is_url(path):
        return action()
    try:
        return tenacity.retry(
            stop=tenacity.stop_after_attempt(TRIES),
            wait=tenacity.wait_exponential(PAUSE),
            retry=tenacity.retry_if_not_exception_type((*FINAL, ConfigError)),
            reraise=True,
        )(action)()
    except (*FINAL, ConfigError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceAway(f"{path} did not answer in {TRIES} tries: {reason}") from None


def is_folder(path: str) -> bool:
    system, inner = filesystem(path)
    return patiently(lambda: system.isdir(inner), path)


def files_below(path: str) -> list[File]:
    """All files below a folder, in the order of their names' parts."""
    found = _remote_files(path) if is_url(path) else _local_files(path)
    return sorted(found, key=lambda file: file.name.split("/"))


def facts(path: str) -> File:
    """Size and stamp of one file. Raises FileNotFoundError."""
    if not is_url(path):
        status = os.stat(path)
        return File(path, status.st_size, str(status.st_mtime_ns))
    system, inner = filesystem(path)
    return _of_info(path, patiently(lambda: system.info(inner), path))


def read(path: str, offset: int = 0, size: int = -1) -> bytes:
    """The bytes of a file from `offset` on, all or `size` of them. Raises EOFError where there are fewer."""
    if not is_url(path):
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read(size)
    else:
        system, inner = filesystem(path)
        stop = None if size < 0 else offset + size
        content = patiently(lambda: system.cat_file(inner, start=offset, end=stop), path)
    if size >= 0 and len(content) < size:
        raise EOFError(f"ends after {len(content)} of {size} bytes")
    return content


def open_file(path: str) -> IO[bytes]:
    """A file to read and seek in."""
    system, inner = filesystem(path)
    return patiently(lambda: system.open(inner, "rb"), path)


def fingerprint(files: Iterable[File]) -> str:
    """SHA-256 of names, sizes and stamps: equal as long as nothing was added, removed or written again."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.stamp}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _local_files(path: str, below: str = "") -> list[File]:
    found: list[File] = []
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir():
                found += _local_files(entry.path, f"{below}{entry.name}/")
            elif entry.is_file():  # not a dangling link
                status = entry.stat()
                found.append(File(below + entry.name, status.st_size, str(status.st_mtime_ns)))
    return found


def _remote_files(path: str) -> list[File]:
    system, inner = filesystem(path)
    found = patiently(lambda: system.find(inner, detail=True), path)
    start = len(inner.rstrip("/")) + 1
    return [_of_info(name[start:], info) for name, info in found.items()]


def _of_info(name: str, info: dict[str, Any]) -> File:
    marks = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")
    stamp = next((str(info[mark]) for mark in marks if info.get(mark)), "")
    return File(name, int(info.get("size") or 0), stamp)
