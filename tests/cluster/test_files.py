"""The files of the cluster folder are what Ray, Kubernetes, Docker and Compose accept, say nothing twice that pyproject.toml
says, hold no secret, and open nothing to the world. They cannot be run here; what can, is run in test_mlflow.py.

Kubernetes' own objects are checked by the schemas of kubernetes-validate. No package ships those of KubeRay: of its objects the
templates of pods are checked as Kubernetes', all other fields by the models below, and the sum by the reader of Ray's autoscaler."""

import copy
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

import kubernetes_validate
import pytest
import yaml
from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, TypeAdapter

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LAUNCHERS = sorted((CLUSTER / "ray").glob("*.yaml"))
COMPOSE = yaml.safe_load((CLUSTER / "mlflow" / "compose.yaml").read_text())
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
OBJECTS = [
    document
    for file in sorted((CLUSTER / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
]
TEXTS = {file: file.read_text() for file in CLUSTER.rglob("*") if file.is_file() and file.name != "local"}
KUBERNETES = "1.34"


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [document for document in OBJECTS if document["kind"] in kinds]


CORE = [document for document in OBJECTS if not document["apiVersion"].startswith("ray.io")]
(RAY_CLUSTER,) = of_kind("RayCluster")
(RAY_JOB,) = of_kind("RayJob")


def entries(value: Any):
    """Every dict in a document."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from entries(part)


# --- Ray's launcher ---


@pytest.mark.parametrize("file", LAUNCHERS, ids=lambda file: file.stem)
def test_ray_accepts_the_launcher_file(file):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(file.read_text()))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    assert config["docker"]["container_name"]


@pytest.mark.parametrize("file", LAUNCHERS, ids=lambda file: file.stem)
def test_nodes_start_ray_with_the_token_and_keep_the_dashboard_to_themselves(file):
    config = yaml.safe_load(file.read_text())
    (mounted,) = config["file_mounts"].items()
    assert mounted == ("/home/ray/nodes", "~/.mambacl/nodes"), "the server's secrets stay where they are"
    for role in ("head", "worker"):
        (start,) = [line for line in config[f"{role}_start_ray_commands"] if "ray start" in line]
        assert start.startswith("set -a; . ~/nodes/environment; set +a; ray start "), start
        assert ("--dashboard-host=127.0.0.1" in start) == (role == "head")


def test_ssh_to_machines_on_aws_is_for_one_network():
    (rule,) = yaml.safe_load((CLUSTER / "ray" / "aws.yaml").read_text())["provider"]["security_group"]["IpPermissions"]
    assert [source["CidrIp"] for source in rule["IpRanges"]] == ["192.0.2.0/24"]


# --- Kubernetes ---


@pytest.mark.parametrize("document", CORE, ids=lambda d: f"{d['kind']} {d['metadata']['name']}")
def test_kubernetes_accepts_the_object(document):
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Auth(Model):
    mode: Literal["token"]
    secretName: str


class Autoscaler(Model):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]
    idleTimeoutSeconds: int
    resources: dict[Literal["requests", "limits"], dict[str, str]]


class Group(Model):
    rayStartParams: dict[str, str]
    """KubeRay takes words only, numbers too as words."""
    template: dict[str, Any]


class Head(Group):
    serviceType: Literal["ClusterIP"]


class Workers(Group):
    groupName: str
    minReplicas: int
    replicas: int
    maxReplicas: int


class RayClusterSpec(Model):
    """The fields of ray.io/v1 that are used, as in KubeRay's reference of its API."""

    rayVersion: str
    authOptions: Auth
    enableInTreeAutoscaling: Literal[True]
    autoscalerOptions: Autoscaler
    headGroupSpec: Head
    workerGroupSpecs: list[Workers]


class RayJobSpec(Model):
    clusterSelector: dict[str, str]
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    backoffLimit: int
    entrypoint: str


def test_kuberay_objects_have_known_fields_and_pods_that_kubernetes_accepts():
    spec = TypeAdapter(RayClusterSpec).validate_python(RAY_CLUSTER["spec"])
    for group in (spec.headGroupSpec, *spec.workerGroupSpecs):
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": group.template},
            KUBERNETES,
            strict=True,
        )
    for group in spec.workerGroupSpecs:
        assert group.minReplicas <= group.replicas <= group.maxReplicas
    job = TypeAdapter(RayJobSpec).validate_python(RAY_JOB["spec"])
    assert job.clusterSelector == {"ray.io/cluster": RAY_CLUSTER["metadata"]["name"]}


def test_the_autoscaler_reads_gpu_and_cpu_workers_and_an_empty_head():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    document = copy.deepcopy(RAY_CLUSTER)
    document["metadata"]["namespace"] = "default"
    config = _derive_autoscaling_config_from_ray_cr(document)
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in kinds["cpu"]["resources"]
    assert kinds["gpu"]["min_workers"] == 1, "a sweep needs a place when it starts"
    assert config["idle_timeout_minutes"] == 10


def test_the_job_is_a_command_that_mambacl_understands():
    from mambacl.platform.arguments import parse_experiment
    from mambacl.platform.commands.sweep import Options

    words = RAY_JOB["spec"]["entrypoint"].split()
    assert words[:2] == ["mambacl", "sweep"]
    experiment, _ = parse_experiment("sweep", Options, words[2:])
    assert experiment.storage.root == "/shared/runs"
    (gpu,) = [group for group in RAY_CLUSTER["spec"]["workerGroupSpecs"] if group["groupName"] == "gpu"]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert experiment.resources.gpus <= limits["nvidia.com/gpu"]
    assert experiment.resources.cpus <= int(limits["cpu"])


def test_pods_run_without_root_and_without_new_rights():
    pods = [part for part in entries(OBJECTS) if "containers" in part]
    assert len(pods) == 5
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]) == {"requests", "limits"}


# --- What is open, and to whom ---


def test_services_are_reached_from_inside_the_cluster_alone():
    services = of_kind("Service")
    assert {service["metadata"]["name"] for service in services} == {"mlflow", "postgres"}
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}
    guarded = [policy["spec"]["podSelector"]["matchLabels"] for policy in of_kind("NetworkPolicy")]
    assert guarded == [{"app": "postgres"}, {"ray.io/cluster": "mambacl"}]


def test_compose_publishes_on_the_loopback_address_unless_asked():
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert published == ["${MAMBACL_BIND:-127.0.0.1}:5432:5432", "${MAMBACL_BIND:-127.0.0.1}:5000:5000"]


def test_compose_and_kubernetes_start_the_same_server():
    (deployment,) = of_kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == COMPOSE["services"]["mlflow"]["command"]
    assert "--app-name=basic-auth" in container["command"]
    (database,) = [spec for spec in entries(OBJECTS) if spec.get("name") == "postgres" and "image" in spec]
    assert database["image"] == COMPOSE["services"]["postgres"]["image"]


def test_compose_itself_accepts_the_file(tmp_path):
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("no `docker compose`")
    make_secrets(tmp_path)
    file = ["-f", CLUSTER / "mlflow" / "compose.yaml"]
    subprocess.run(
        [docker, "compose", "--env-file", tmp_path / "server" / "environment", *file, "config", "-q"], check=True
    )


# --- Secrets ---

SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|ACCESS_KEY)")


def make_secrets(folder: Path, *hosts: str) -> dict[str, dict[str, str]]:
    """What cluster/secrets writes: {"nodes": {variable: value}, "server": ...}."""
    environment = {**os.environ, "MAMBACL_SECRETS": str(folder)}
    subprocess.run([CLUSTER / "secrets", *(hosts or ["mlflow.test"])], env=environment, check=True, capture_output=True)
    return {
        name: dict(line.split("=", 1) for line in (folder / name / "environment").read_text().splitlines())
        for name in ("nodes", "server")
    }


def test_secrets_are_random_private_and_never_overwritten(tmp_path):
    first, second = make_secrets(tmp_path / "first"), make_secrets(tmp_path / "second", "mlflow", "postgres")
    for part in ("nodes", "server"):
        file = tmp_path / "first" / part / "environment"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for name, value in first[part].items():
            if SECRET.search(name) and name != "AWS_ACCESS_KEY_ID":
                assert re.fullmatch(r"[0-9a-f]{64}", value), name
                assert value != second[part][name], name
    assert f":{first['server']['OPTUNA_PASSWORD']}@mlflow.test:5432/" in first["nodes"]["MAMBACL_STUDY_URI"]
    assert second["nodes"]["MAMBACL_STUDY_URI"].endswith("@postgres:5432/optuna")
    assert not {v for v in first["nodes"].values() if len(v) == 64} & set(first["server"].values()), "nodes share none"
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(tmp_path / "first")


def test_what_files_ask_for_is_what_the_script_makes(tmp_path):
    made = make_secrets(tmp_path)
    text = TEXTS[CLUSTER / "mlflow" / "compose.yaml"]
    assert set(re.findall(r"\$\{(\w+)", text)) == set(made["server"])
    keys = {part["key"] for part in entries(OBJECTS) if part.get("name") == "mambacl-server" and "key" in part}
    assert keys <= set(made["server"])
    assert {part["secretRef"]["name"] for part in entries(OBJECTS) if "secretRef" in part} == {
        "mambacl-nodes",
        "mambacl-server",
    }


def test_no_file_holds_a_secret():
    """Variables of secrets have no value in a file but that of another variable, a random one, or a place of a Secret."""
    for file, text in TEXTS.items():
        for name, value in re.findall(r"\b([A-Z_]+)\b\s*[=:]\s*([^\s,]+)", text):
            if SECRET.search(name) and name != "MAMBACL_SECRETS":
                # The name of a key is no secret, and :'password' is a variable of psql.
                known = value.startswith(("${", "$(random)", "$study", '"$')) or value in ("mlflow", "'password';")
                assert known, f"{file.name}: {name} = {value}"
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|://[^\s/:@]+:[^\s$@{]+@", text), file.name
    for part in entries(OBJECTS):
        if SECRET.search(str(part.get("name", ""))) and "valueFrom" not in part:
            assert "value" not in part, part


# --- Images ---


def test_images_and_ray_have_the_versions_of_pyproject():
    for file, text in TEXTS.items():
        for tag in re.findall(r"mambacl:([\w.-]+)", text):
            assert tag in (f"{PROJECT['version']}-cpu", f"{PROJECT['version']}-gpu"), f"{file.name}: {tag}"
    (ray,) = [need for need in map(Requirement, PROJECT["dependencies"]) if need.name == "ray"]
    assert ray.specifier.contains(RAY_CLUSTER["spec"]["rayVersion"])
    assert not re.search(r"pip install[^\n]*\b(torch|ray|mlflow|mamba-ssm)\W*[=<>~]=", DOCKERFILE)


def test_foreign_images_are_pinned():
    images = re.findall(r"^\s*(?:FROM|image:)\s+(\S+)", "\n".join(TEXTS.values()), re.MULTILINE)
    stages = set(re.findall(r" AS (\S+)", DOCKERFILE))
    arguments = dict(re.findall(r"^ARG (\w+)=(\S+)", DOCKERFILE, re.MULTILINE))
    for image in set(images) - stages:
        tag = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], image).partition(":")[2]
        assert re.search(r"\d+\.\d+", tag), image


def test_the_linter_finds_nothing_in_the_dockerfile():
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run(
        [linter if linter.exists() else "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_as_a_user_who_is_not_root(target):
    stage = re.search(rf"^FROM base AS {target}$(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert stage is not None
    assert re.findall(r"^USER (\S+)", stage[1], re.MULTILINE) == ["1000"]
    assert not re.search(r"^ADD ", DOCKERFILE, re.MULTILINE)


def test_the_gpu_image_asks_for_all_kernels_and_proves_that_they_are_there():
    stage = re.search(r"^FROM base AS gpu-packages$(.*?)^FROM", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert stage is not None
    for flag in ("MAMBA_FORCE_BUILD=TRUE", "MAMBA_KEEP_CUDA_BUILD=TRUE", "CAUSAL_CONV1D_FORCE_BUILD=TRUE"):
        assert stage[1].index(flag) < stage[1].index("--no-build-isolation")
    assert stage[1].index("--no-build-isolation") < stage[1].index(
        "import torch, selective_scan_cuda, causal_conv1d_cuda"
    )


def test_the_image_installs_what_pyproject_lists(tmp_path):
    """The command of the Dockerfile that makes lists of packages, run."""
    (command,) = re.findall(r'^RUN (python -c "import pathlib.*?")$', DOCKERFILE, re.MULTILINE | re.DOTALL)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    lists = {name: (tmp_path / f"{name}.txt").read_text().splitlines() for name in ("base", "torch", "gpu")}
    extras = PROJECT["optional-dependencies"]
    assert lists["base"] == PROJECT["dependencies"] + extras["cluster"] + extras["encoders"]
    assert [Requirement(line).name for line in lists["torch"]] == ["torch", "torchvision"]
    assert lists["gpu"] == extras["gpu"]


def test_the_image_is_made_without_history_data_results_and_secrets():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "data", "runs", "**/environment", "**/*.env"} <= set(ignored)
    assert not {"pyproject.toml", "README.md", "LICENSE", "tasks", "learners", "platform"} & set(ignored)


# --- The page ---

PAGE = TEXTS[CLUSTER / "README.md"]


def test_the_page_explains_every_variable_and_names_every_file(tmp_path):
    made = make_secrets(tmp_path)
    asked = {
        name
        for part in entries(OBJECTS)
        if isinstance(part.get("env"), list)
        for name in (e["name"] for e in part["env"])
    }
    asked |= {name for service in COMPOSE["services"].values() for name in service.get("environment", {})}
    asked |= set(re.findall(r"\b((?:RAY|MLFLOW|NVIDIA)_\w+)=", DOCKERFILE)) | {"MAX_JOBS", "CUDA", "TORCH_INDEX"}
    explained = set(re.findall(r"`([A-Z][A-Z0-9_]+)(?:=[^`]*)?`", PAGE)) | {"MAX_JOBS"} & set(re.findall(r"\w+", PAGE))
    assert not (asked | set(made["nodes"]) | set(made["server"])) - explained
    table = set(re.findall(r"^\| `(\w+)/?` \|", PAGE, re.MULTILINE))
    assert {file.name for file in CLUSTER.iterdir()} - {"README.md"} <= table


@pytest.mark.parametrize("row", re.findall(r"^\| `(quickstart.*?)` (\|.*)", PAGE, re.MULTILINE), ids=lambda row: row[0])
def test_the_figures_of_sizing_are_those_of_show(row):
    """Of a step's memory and of P; the rest of the table follows by the formulas of the page."""
    from mambacl.platform.arguments import parse_experiment
    from mambacl.platform.commands.show import Options
    from mambacl.platform.console import amount
    from mambacl.platform.cost import cost_of

    experiment, _ = parse_experiment("show", Options, row[0].split())
    cost = cost_of(experiment)
    checkpoint = 12 * cost.parameters
    cells = [
        f"{cost.parameters:,}",
        *(amount(n, "B") for n in (cost.train_bytes, checkpoint, (experiment.train.keep + 2) * checkpoint)),
    ]
    assert row[1] == f"| {' | '.join(cells)} |"
