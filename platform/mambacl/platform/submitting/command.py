"""One submission: what goes along is shown, nothing runs twice, and the job's log can be followed."""

import dataclasses
import json
import logging
import os
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from mambacl.platform.machine import version
from mambacl.platform.origin import origin
from mambacl.platform.places import GROUP, places_among
from mambacl.platform.shipping import check_size, code_of_checkout
from mambacl.platform.submitting.follow import follow
from mambacl.platform.submitting.request import Request, understand
from mambacl.tasks.config import ConfigError

SERVER, CLUSTER = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"

STOPPING = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "90"}
"""A job that is stopped gets Ctrl-C, and the time to write checkpoints; Ray's default is a kill after three seconds."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is submitted."""

    id: str
    entrypoint: list[str]
    runtime_env: dict[str, Any]
    metadata: dict[str, str]

    @classmethod
    def of(cls, request: Request, working_dir: Path | None) -> "Job":
        """No secret is in it: whoever sees the dashboard can read it. The job has them from the environment of its node."""
        about = {
            "mambacl": version("mambacl"),
            "command": shlex.join(["mambacl", *request.words]),
            "config": request.digest,
            "folder": str(request.folder) if request.folder else None,
        }
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in request.name)
        return cls(
            id=f"{request.words[0]}-{name}-{time.strftime('%Y%m%d-%H%M')}-{secrets.token_hex(2)}",
            entrypoint=["python", "-m", "mambacl.platform.cli", *request.words],
            runtime_env=code_of_checkout()
            | {"env_vars": STOPPING}
            | ({"working_dir": str(working_dir)} if working_dir else {}),
            metadata=origin().metadata | {field: value for field, value in about.items() if value},
        )

    def line(self, address: str | None, wait: bool) -> str:
        """The command of Ray's that submits the same."""
        words = ["ray", "job", "submit", *(["--address", address] if address else []), "--submission-id", self.id]
        words += ["--metadata-json", json.dumps(self.metadata), "--runtime-env-json", json.dumps(self.runtime_env)]
        return shlex.join([*words, *([] if wait else ["--no-wait"]), "--", *self.entrypoint])


def submit(words: Sequence[str], address: str | None, wait: bool, dry_run: bool) -> tuple[dict[str, Any], int]:
    """Submit a command line, or show what would be submitted; returns what `mambacl submit --json` prints, and an exit code.

    Raises ConfigError for what cannot work, before anything is sent.
    """
    request = understand(words)
    working_dir = lay_out(request)
    try:
        job = Job.of(request, working_dir)
        show(job, request)
        if dry_run:
            line = job.line(address, wait)
            print(line)
            return {"job": job.id, "line": line}, 0
        client = connect(address)
        nodes = nodes_of(client)
        check_room(nodes, request)
        if other := at_work(client, nodes, request):
            if request.words[0] != "resume":
                raise ConfigError(
                    f"name: job {other.submission_id} works in {request.folder} already; "
                    f"ray job logs --follow {other.submission_id} shows it, ray job stop {other.submission_id} ends it"
                )
            print(f"job {other.submission_id} is at it")
            name = other.submission_id or ""
        else:
            name = client.submit_job(
                entrypoint=shlex.join(job.entrypoint),
                submission_id=job.id,
                runtime_env=job.runtime_env,
                metadata=job.metadata,
            )
    finally:
        if working_dir and not dry_run:
            shutil.rmtree(working_dir)
    print(f"job        {name}\nfollow it  ray job logs --follow {name}\nstop it    ray job stop {name}")
    print(f"see it     {client.get_address()}/#/jobs/{name}", flush=True)
    return {"job": name, "address": client.get_address()}, follow(client, name) if wait else 0


def lay_out(request: Request) -> Path | None:
    """A folder with the files that the job reads, if it reads any."""
    if not request.files:
        return None
    folder = Path(tempfile.mkdtemp(prefix="mambacl-submit-"))
    for name, text in request.files.items():
        (folder / name).write_text(text)
    return folder


def show(job: Job, request: Request) -> None:
    """What goes along."""
    folders = [Path(folder) for folder in job.runtime_env.get("py_modules", [])]
    code = f"{check_size(folders) / 2**20:.1f} MiB of code: {', '.join(map(str, folders))}"
    print(f"goes along {code if folders else 'no code: the cluster runs the mambacl that it has installed'}")
    if request.files:
        print(f"           {', '.join(request.files)}")


def connect(address: str | None) -> JobSubmissionClient:
    """A client of the cluster's job server. Raises ConfigError where no cluster is named, or one that refuses us."""
    if address:
        os.environ[SERVER] = address  # which Ray prefers to what it is given
    elif not os.environ.keys() & {SERVER, CLUSTER}:
        raise ConfigError(f"address: to which cluster? --address http://HEAD:8265, or the environment's {SERVER}")
    for name in ("ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient()
    except AuthenticationError:
        raise ConfigError(
            "address: the cluster refuses the token of this side, or misses it; "
            "RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, a file, must hold the cluster's"
        ) from None


def nodes_of(client: JobSubmissionClient) -> list[Any]:
    """Nodes of the cluster that are there; none where it does not tell."""
    try:
        known: list[Any] = list_nodes(client.get_address())
    except RayStateApiException:
        return []
    return [node for node in known if node.state == "ALIVE"]


def check_room(nodes: Sequence[Any], request: Request) -> None:
    """Raise ConfigError for what the cluster can never run. Where it does not say what it has, the job's driver will see."""
    may_grow = any(GROUP in node.labels for node in nodes)
    for need in request.resources if nodes else ():
        places_among([node.resources_total for node in nodes], need, may_grow)


def at_work(client: JobSubmissionClient, nodes: Sequence[Any], request: Request) -> JobDetails | None:
    """The job that works in the request's folder and is not over, if there is one.

    A head that is started again knows jobs of the one before as running for a while, whose drivers died with it.
    """
    wanted, there = str(request.folder), {None, *(node.node_id for node in nodes)}
    for job in client.list_jobs():
        over = job.status.is_terminal() or (nodes and job.driver_node_id not in there)
        if job.submission_id and (job.metadata or {}).get("folder") == wanted and not over:
            return job
    return None
