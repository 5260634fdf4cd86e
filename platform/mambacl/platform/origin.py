"""Who asked for this work, and with which code: this user and checkout, or those that a job was submitted with."""

import dataclasses
import functools
import getpass
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mambacl.platform.shipping import source_roots

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray gives the driver of a submitted job, and nobody else, the job's metadata in it."""


@dataclasses.dataclass(frozen=True)
class Origin:
    user: str
    commit: str | None
    """Of the checkout; None where there is none, as with an installed wheel."""
    dirty: bool
    """Whether the code differs from that commit."""
    job: str | None = None
    """Submission id of the Ray job that this process drives."""

    @property
    def metadata(self) -> dict[str, str]:
        """What a job is submitted with, for its driver to read."""
        code = {"commit": self.commit, "dirty": str(self.dirty).lower()} if self.commit else {}
        return {"user": self.user, **code}

    @property
    def tags(self) -> dict[str, str]:
        """What MLflow runs carry of it."""
        tags = {"mlflow.user": self.user}
        if self.commit:
            tags |= {"mlflow.source.git.commit": self.commit, "mambacl.dirty": str(self.dirty).lower()}
        return tags | ({"mambacl.ray_job": self.job} if self.job else {})


@functools.cache
def origin() -> Origin:
    """That of this process."""
    if JOB in os.environ:
        return of_job(json.loads(os.environ[JOB]).get("metadata", {}))
    commit, dirty = revision(source_roots() or [Path.cwd()])
    return Origin(getpass.getuser(), commit, dirty)


def of_job(metadata: Mapping[str, str]) -> Origin:
    """That of a job's submitter; a job that was submitted without our metadata has a user at least."""
    return Origin(
        user=metadata.get("user") or getpass.getuser(),
        commit=metadata.get("commit"),
        dirty=metadata.get("dirty") == "true",
        job=metadata["job_submission_id"],
    )


def revision(folders: list[Path]) -> tuple[str | None, bool]:
    """The commit that is checked out, and whether these folders hold anything else; (None, False) outside a repository."""
    commit = _git(folders[0], "rev-parse", "HEAD")
    return commit or None, bool(commit and _git(folders[0], "status", "--porcelain", "--", *map(str, folders)))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # images of a cluster often have no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
