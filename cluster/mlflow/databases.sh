#!/usr/bin/env bash
# Run by the image of PostgreSQL when its data folder is new: beside `mlflow`, which it makes itself, a database for MLflow's
# users, and one for Optuna's studies with a role of its own, since jobs hold its password and must not reach the others.
set -euo pipefail
psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --set password="$OPTUNA_PASSWORD" <<'END'
CREATE DATABASE mlflow_auth;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, postgres FROM PUBLIC;
CREATE ROLE optuna LOGIN PASSWORD :'password';
CREATE DATABASE optuna OWNER optuna;
END
