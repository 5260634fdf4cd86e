"""Training, sweeps, evaluation, tracking and the command line: the only part that knows Ray, MLflow and Optuna."""
