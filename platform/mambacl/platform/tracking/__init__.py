"""MLflow as a picture of what is on disk: run folders hold the truth, and can be delivered at any time, any number of times.

Importing this package sets MLflow's switches, which it reads when it is first imported: quiet, private, no pickles, and no
call that blocks for minutes. What the user has set stays.
"""

import os

SWITCHES = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    # By default a call to a server that is away blocks for four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}

for _name, _value in SWITCHES.items():
    os.environ.setdefault(_name, _value)
