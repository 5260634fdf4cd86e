"""Connecting to Ray: a cluster that is asked for, or one of this machine's own that ends with the process."""

import contextlib
import logging
import os
from collections.abc import Iterator

import ray

from mambacl.platform import SWITCHES


@contextlib.contextmanager
def session(address: str | None) -> Iterator[None]:
    """Ray for the length of some work: the cluster at `address`, that of the job that this is, or a local one.

    Inside another session it is that one.
    """
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    remote = address or os.environ.get("RAY_ADDRESS")
    ray.init(
        address=remote or "local",  # never another cluster that happens to run on this machine
        include_dashboard=None if remote else False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        # Processes of a local cluster inherit the driver's environment.
        runtime_env={"env_vars": SWITCHES} if remote else None,
    )
    try:
        yield
    finally:
        ray.shutdown()
