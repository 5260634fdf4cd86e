"""Training, sweeps, evaluation, tracking and the command line: the only part that knows Ray, MLflow and Optuna.

Importing this package sets switches that those libraries read when they are first imported; what the user has set stays.
"""

import os

SWITCHES = {
    # Pydantic: a search for plugins, which reads the metadata of all packages, at every start.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # Ray: quiet and private, with token authentication.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # An actor that is out of reach may be dead or not. By default Ray gives it up after a second; the head, which looks whether
    # its node lives, knows after some.
    "RAY_timeout_ms_task_wait_for_death_info": "30000",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # each report waits for about one interval
    # Run folders, study and MLflow hold it all: Tune's own logs and snapshots are not wanted.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed early has no score, which is not the sweep's end
    # MLflow: quiet, private, and no pickles.
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
    # By default a call to a server that is away blocks for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    # glibc returns big temporaries to the system at once by default, and taking them back costs ten times the work.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_ARENA_MAX": "1",  # one heap: those of further threads, as Ray Train trains on, give back at 64 MB all the same
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large pages, where the kernel gives them to those who ask
}

for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
