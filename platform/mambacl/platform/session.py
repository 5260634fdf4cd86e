"""Connecting to Ray: a cluster that is asked for, or one of this machine's own that ends with the process."""

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import ray

from mambacl.platform import SWITCHES
from mambacl.platform.origin import origin
from mambacl.platform.shipping import code_of_checkout


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
        runtime_env=_environment() if remote else None,  # processes of a local cluster inherit the driver's
    )
    try:
        yield
    finally:
        ray.shutdown()


def _environment() -> dict[str, Any]:
    """What workers of a cluster need of this driver: switches and, unless they came with its job, what is edited here."""
    return {"env_vars": SWITCHES} | ({} if origin().job else code_of_checkout())
