"""Connecting to Ray: a cluster that is asked for, or one of this machine's own that ends with the process."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

# Quiet and private before ray is imported anywhere in the driver; workers of a local cluster inherit them.
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # each report waits for about one interval
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # MLflow is the log; Tune's own CSV, JSON and TensorBoard files are not
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # glibc returns big temporaries to the system at once by default, and taking them back costs ten times the work.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
}


@contextlib.contextmanager
def session(address: str | None) -> Iterator[None]:
    """Ray for the length of a command: the cluster at `address` (or that of the job that this is), else a local one."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ or "RAY_ADDRESS" in os.environ
    ray.init(
        address=address or (None if in_job else "local"),
        include_dashboard=False if not (address or in_job) else None,
        log_to_driver=False,
        logging_level="warning",
        runtime_env={"env_vars": ENVIRONMENT} if address or in_job else None,
    )
    try:
        yield
    finally:
        ray.shutdown()
