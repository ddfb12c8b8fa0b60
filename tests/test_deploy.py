"""A fleet's settings, and that what is rendered of them is what Ray, Kubernetes and Docker take."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from docker.utils.build import exclude_paths
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError
from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
from ray.autoscaler._private.docker import docker_start_cmds
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
from typer.testing import CliRunner

from cluster import heap
from cluster.deploy import Settings, example_settings, next_commands, read_settings, render
from cluster.deploy.job import entrypoint
from cluster.deploy.settings import parse_settings
from cluster.errors import ClusterError
from search.cli import app
from search.cli.deploying import render as render_command

ROOT = Path(__file__).resolve().parents[1]
HADOLINT = Path(sys.executable).with_name("hadolint")
KUBERNETES = ("1.31", "1.37")
CRDS_VARIABLE = "KUBERAY_CRDS"
"""A folder with KubeRay's own ray.io_rayclusters.yaml and ray.io_rayjobs.yaml, from its repository or made by
`kubectl get crd rayclusters.ray.io -o yaml`; they are in no package, and too large to be copied. `.ci/run` sets it
where the files are at hand."""

Raw = dict[str, Any]


def without(*keys: str) -> Callable[[Raw], None]:
    """A change that takes ``keys``, such as ``storage.shared_folder``, out of settings."""

    def change(raw: Raw) -> None:
        for key in keys:
            *parents, last = key.split(".")
            section = raw
            for parent in parents:
                section = section[parent]
            del section[last]

    return change


def with_(**values: Any) -> Callable[[Raw], None]:
    """A change of settings; ``__`` in a name reaches inside."""

    def change(raw: Raw) -> None:
        for key, value in values.items():
            *parents, last = key.split("__")
            section = raw
            for parent in parents:
                section = section[parent]
            section[last] = value

    return change


def changed(*changes: Callable[[Raw], None]) -> Raw:
    raw: Raw = yaml.safe_load(example_settings())
    for change in changes:
        change(raw)
    return raw


_ON_OBJECTS = (
    without("storage.shared_folder", "ray_up.nfs", "kubernetes.storage_class"),
    with_(storage__data_dir="/home/ray/data"),
)
VARIATIONS: dict[str, Raw] = {
    "example": changed(),
    "no GPUs": changed(without("gpu_workers"), with_(torch="cpu")),
    "only GPUs": changed(without("cpu_workers"), with_(gpu_workers__min=2, gpu_workers__gpus=8)),
    "no spot": changed(
        with_(cpu_workers__spot=False), without("gpu_workers.spot", "kubernetes.spot_label", "kubernetes.gpu_label")
    ),
    "on S3": changed(
        *_ON_OBJECTS,
        with_(
            storage__experiments_dir="s3://bucket/fmnist",
            ray_up__worker_instance_profile="fmnist-worker",
            kubernetes__object_secret="fmnist-objects",
            kubernetes__service_account="fmnist",
        ),
    ),
    "on GS": changed(*_ON_OBJECTS, with_(storage__experiments_dir="gs://bucket/fmnist"), without("ray_up")),
    "nothing at rest": changed(with_(cpu_workers__min=0)),
    "no database": changed(without("storage.study_storage", "kubernetes.database_secret")),
    "only ray up": changed(without("kubernetes")),
    "only KubeRay": changed(
        without("ray_up", "head.instance_type", "cpu_workers.instance_type", "gpu_workers.instance_type")
    ),
    "own search": changed(
        with_(job={"name": "mine", "config": "/shared/my.yaml", "set": {"deterministic": True, "space.lr": "1e-3"}})
    ),
}


@pytest.fixture(params=VARIATIONS)
def fleet(request: pytest.FixtureRequest) -> Settings:
    return parse_settings(VARIATIONS[request.param], where="fleet.yaml")


def rendered(fleet: Settings, folder: Path) -> dict[str, Any]:
    """What was rendered: YAML as its value, the rest as text."""
    return {
        str(path.relative_to(folder)): yaml.safe_load(path.read_text()) if path.suffix == ".yaml" else path.read_text()
        for path in render(fleet, folder)
    }


# What `ray up` takes, by Ray's own schema and code.


def check_ray_up(config: Raw, fleet: Settings) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["cluster_name"] == fleet.name
    assert prepared["docker"]["image"] == fleet.image
    assert types.keys() == {"head", *fleet.workers}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    for kind, workers in fleet.workers.items():
        assert (types[kind]["min_workers"], types[kind]["max_workers"]) == (workers.min, workers.max)
        assert types[kind]["resources"]["CPU"] == workers.cpus
        assert types[kind]["node_config"]["InstanceType"] == workers.instance_type
        assert ("InstanceMarketOptions" in types[kind]["node_config"]) == workers.spot
    if fleet.gpu_workers is not None:
        gpus = {"GPU": fleet.gpu_workers.gpus, f"accelerator_type:{fleet.gpu_workers.accelerator_type}": 1}
        assert gpus.items() <= types["gpu"]["resources"].items()
    # Ray's defaults install a Ray of their own.
    assert not prepared["setup_commands"] + prepared["head_setup_commands"] + prepared["worker_setup_commands"]


def test_ray_takes_what_ray_up_is_given(fleet: Settings, tmp_path: Path) -> None:
    files = rendered(fleet, tmp_path / "fleet")
    assert ("ray-cluster.yaml" in files) == (fleet.ray_up is not None)
    if fleet.ray_up is not None:
        check_ray_up(files["ray-cluster.yaml"], fleet)


def test_ray_would_refuse_a_mistake_in_it(tmp_path: Path) -> None:
    config = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")["ray-cluster.yaml"]
    config["available_node_types"]["gpu"]["resource"] = {}
    with pytest.raises(Exception, match="'resource' was unexpected"):
        check_ray_up(config, parse_settings(changed(), where=""))


def test_the_container_that_ray_up_starts_has_the_environment_and_the_secrets(tmp_path: Path) -> None:
    config = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")["ray-cluster.yaml"]
    docker = config["docker"]
    command = docker_start_cmds(
        "ubuntu", docker["image"], config["file_mounts"], docker["container_name"],
        docker["run_options"], config["cluster_name"], "/home/ray", "docker",
    )  # fmt: skip
    words = shlex.split(command)
    variables = dict(words[i + 1].split("=", 1) for i, word in enumerate(words) if word == "--env")
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["FMNIST_EXPERIMENTS_DIR"] == "/shared/experiments"
    assert variables["FMNIST_DATA_DIR"] == "/shared/data"
    assert heap.VARIABLES.items() <= variables.items()
    assert variables["FMNIST_STUDY_STORAGE"] == "postgresql://fmnist@database/fmnist"
    assert "PGPASSWORD" not in variables
    (secrets,) = config["file_mounts"]
    assert {variables["RAY_AUTH_TOKEN_PATH"], variables["PGPASSFILE"]} == {f"{secrets}/auth_token", f"{secrets}/pgpass"}
    assert "/shared:/shared" in words
    assert words[-2:] == ["fmnist-search:0.1.0", "bash"]
    assert config["available_node_types"]["gpu"]["docker"] == {"worker_run_options": ["--gpus all"]}
    assert "sudo mount -t nfs4 10.0.0.5:/export /shared" in config["initialization_commands"][-1]


# What KubeRay takes. Pods and claims by Kubernetes' own schemas. Of KubeRay's, those fields that are used, as its API
# reference and apis/ray/v1/*_types.go of 1.7 have them; all of it, if KUBERAY_CRDS says where it is.

_TEXT, _NUMBER, _TRUTH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_POD = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _object(required: str = "", **properties: Any) -> Raw:
    return {"type": "object", "properties": properties, "required": required.split()}


_GROUP = {"rayStartParams": _TEXTS, "labels": _TEXTS, "resources": _TEXTS, "template": _POD}
_CLUSTER_SPEC = _object(
    "headGroupSpec",
    rayVersion=_TEXT,
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    enableInTreeAutoscaling=_TRUTH,
    autoscalerOptions=_object(idleTimeoutSeconds=_NUMBER),
    headGroupSpec=_object("template", **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            "groupName maxReplicas minReplicas template",
            groupName=_TEXT,
            replicas=_NUMBER,
            minReplicas=_NUMBER,
            maxReplicas=_NUMBER,
            **_GROUP,
        ),
    },
)
_JOB_SPEC = _object(
    entrypoint=_TEXT,
    submissionMode=_TEXT,
    backoffLimit=_NUMBER,
    shutdownAfterJobFinishes=_TRUTH,
    ttlSecondsAfterFinished=_NUMBER,
    rayClusterSpec=_CLUSTER_SPEC,
)
_USED = {
    kind: _object("spec", apiVersion={"const": "ray.io/v1"}, kind=_TEXT, metadata={"type": "object"}, spec=spec)
    for kind, spec in (("RayCluster", _CLUSTER_SPEC), ("RayJob", _JOB_SPEC))
}


def closed(schema: Any) -> Any:
    """The schema, with every key that it does not name refused, as `kubectl apply` does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict


@functools.cache
def published(kind: str) -> Draft202012Validator:
    """The validator of KubeRay's schema of ``kind``, read once: each file has about a megabyte."""
    folder = Path(os.environ[CRDS_VARIABLE])
    text = (folder / f"ray.io_{kind.lower()}s.yaml").read_text()
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    return Draft202012Validator(closed(version["schema"]["openAPIV3Schema"]))


def pods(manifest: Raw) -> Iterator[Raw]:
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]


def check_pods(manifest: Raw) -> None:
    for pod in pods(manifest):
        for version in KUBERNETES:
            wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": pod}
            kubernetes_validate.validate(wrapped, version, strict=True)


def check_kuberay(files: dict[str, Any], fleet: Settings) -> None:
    for name in ("kuberay/ray-cluster.yaml", "kuberay/ray-job.yaml"):
        Draft202012Validator(closed(_USED[files[name]["kind"]])).validate(files[name])
        check_pods(files[name])
    cluster, job = files["kuberay/ray-cluster.yaml"], files["kuberay/ray-job.yaml"]
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    assert shlex.split(job["spec"]["entrypoint"])[:3] == ["fmnist", "search", "run"]

    spec = cluster["spec"]
    assert spec["rayVersion"] == metadata.version("ray")
    assert [container["image"] for pod in pods(cluster) for container in pod["spec"]["containers"]] == [fleet.image] * (
        1 + len(fleet.workers)
    )

    # How Ray's autoscaler understands it.
    config = _derive_autoscaling_config_from_ray_cr(cluster | {"metadata": cluster["metadata"] | {"namespace": "ns"}})
    types = config["available_node_types"]
    head = types.pop("headgroup")
    assert config["cluster_name"] == fleet.name
    assert config["idle_timeout_minutes"] * 60 == pytest.approx(fleet.idle_timeout_s)
    assert head["resources"]["CPU"] == 0
    assert types.keys() == fleet.workers.keys()
    for kind, workers in fleet.workers.items():
        assert (types[kind]["min_workers"], types[kind]["max_workers"]) == (workers.min, workers.max)
        assert types[kind]["resources"]["CPU"] == workers.cpus
        assert types[kind]["labels"]["ray.io/market-type"] == ("spot" if workers.spot else "on-demand")
    if fleet.gpu_workers is not None:
        gpus = {"GPU": fleet.gpu_workers.gpus, f"accelerator_type:{fleet.gpu_workers.accelerator_type}": 1}
        assert gpus.items() <= types["gpu"]["resources"].items()

    volume = files.get("kuberay/experiments-volume.yaml")
    claims = [pod["spec"].get("volumes", []) for pod in pods(cluster)]
    if fleet.storage.shared_folder is None:
        assert (volume, [volume for claim in claims for volume in claim]) == (None, [])
    else:
        kubernetes_validate.validate(volume, KUBERNETES[0], strict=True)
        names = [volume["persistentVolumeClaim"]["claimName"] for claim in claims for volume in claim]
        assert names == [volume["metadata"]["name"]] * len(claims)


def test_kuberay_and_kubernetes_take_the_manifests(fleet: Settings, tmp_path: Path) -> None:
    files = rendered(fleet, tmp_path / "fleet")
    assert ("kuberay/ray-job.yaml" in files) == (fleet.kubernetes is not None)
    if fleet.kubernetes is not None:
        check_kuberay(files, fleet)


needs_published = pytest.mark.skipif(
    CRDS_VARIABLE not in os.environ, reason=f"${CRDS_VARIABLE} names no folder with KubeRay's schemas"
)


@needs_published
def test_kuberays_published_schemas_take_the_manifests(fleet: Settings, tmp_path: Path) -> None:
    for name, manifest in rendered(fleet, tmp_path / "fleet").items():
        if name in ("kuberay/ray-cluster.yaml", "kuberay/ray-job.yaml"):
            published(manifest["kind"]).validate(manifest)


mistyped_keys = pytest.mark.parametrize(
    ("path", "key"),
    [
        ("spec", "authOption"),
        ("spec headGroupSpec", "rayStartParam"),
        ("spec workerGroupSpecs 0", "maxReplica"),
        ("spec workerGroupSpecs 1 template spec", "toleration"),
        ("spec headGroupSpec template spec containers 0", "livenesProbe"),
        ("spec headGroupSpec template spec containers 0 startupProbe httpGet", "url"),
    ],
)


def mistype(manifest: Raw, path: str, key: str) -> None:
    part: Any = manifest
    for step in path.split():
        part = part[int(step) if step.isdigit() else step]
    part[key] = {}


@mistyped_keys
def test_a_mistyped_key_in_a_manifest_would_be_found(path: str, key: str, tmp_path: Path) -> None:
    fleet = parse_settings(changed(), where="")
    files = rendered(fleet, tmp_path / "fleet")
    mistype(files["kuberay/ray-cluster.yaml"], path, key)
    with pytest.raises(Exception, match=f"'{key}' was unexpected"):
        check_kuberay(files, fleet)


@needs_published
@mistyped_keys
def test_kuberays_published_schemas_find_a_mistyped_key(path: str, key: str, tmp_path: Path) -> None:
    manifest = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")["kuberay/ray-cluster.yaml"]
    mistype(manifest, path, key)
    with pytest.raises(ValidationError, match=f"'{key}' was unexpected"):
        published(manifest["kind"]).validate(manifest)


def test_a_pod_has_token_password_storage_probes_and_a_place(tmp_path: Path) -> None:
    files = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")
    cluster = files["kuberay/ray-cluster.yaml"]
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "fmnist-token"}
    for pod in pods(cluster):
        (container,) = pod["spec"]["containers"]
        variables = {variable["name"]: variable for variable in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert variables["FMNIST_EXPERIMENTS_DIR"]["value"] == "/shared/experiments"
        assert variables["FMNIST_DATA_DIR"]["value"] == "/shared/data"
        token, password = variables["RAY_AUTH_TOKEN"]["valueFrom"], variables["PGPASSWORD"]["valueFrom"]
        assert token == {"secretKeyRef": {"name": "fmnist-token", "key": "auth_token"}}
        assert password == {"secretKeyRef": {"name": "fmnist-database", "key": "password"}}
        assert container["volumeMounts"] == [{"name": "shared", "mountPath": "/shared"}]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in PUBLIC_EXACT_PATHS  # which Ray answers without a token
            assert asked["port"] == DEFAULT_DASHBOARD_AGENT_LISTEN_PORT
    head, cpu, gpu = pods(cluster)
    assert "nodeSelector" not in head["spec"]
    assert cpu["spec"]["nodeSelector"] == {"karpenter.sh/capacity-type": "spot"}
    assert gpu["spec"]["nodeSelector"].keys() == {"karpenter.sh/capacity-type", "nvidia.com/gpu.product"}
    assert [toleration["key"] for toleration in gpu["spec"]["tolerations"]] == [
        "karpenter.sh/capacity-type",
        "nvidia.com/gpu",
    ]
    assert gpu["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_pods_get_at_object_storage(tmp_path: Path) -> None:
    files = rendered(parse_settings(VARIATIONS["on S3"], where=""), tmp_path / "fleet")
    for pod in pods(files["kuberay/ray-cluster.yaml"]):
        assert pod["spec"]["serviceAccountName"] == "fmnist"
        assert pod["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "fmnist-objects"}}]
    types = files["ray-cluster.yaml"]["available_node_types"]
    assert types["cpu"]["node_config"]["IamInstanceProfile"] == {"Name": "fmnist-worker"}


# The image.


def test_the_dockerfile_passes_the_linter(fleet: Settings, tmp_path: Path) -> None:
    render(fleet, tmp_path / "fleet")
    command = [HADOLINT, "--no-color", "--failure-threshold", "style", tmp_path / "fleet" / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_is_copied_into_the_image_is_there_and_is_all_that_is_installed(tmp_path: Path) -> None:
    text = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")["Dockerfile"]
    copied = {source for line in re.findall("^COPY (.*)", text, re.M) for source in line.split()[:-1]}
    assert [source for source in sorted(copied) if not (ROOT / source).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]} <= copied
    assert {*project["project"]["license-files"], project["project"]["readme"], "constraints.txt"} <= copied
    extras = set(re.findall(r"'\.\[(.*)\]'", text))
    assert extras <= project["project"]["optional-dependencies"].keys()


def test_only_sources_are_sent_to_where_the_image_is_built(tmp_path: Path) -> None:
    files = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")
    inside = ("search/cli/__init__.py", "search/presets/full.yaml", "cluster/py.typed", "pyproject.toml", "LICENSE")
    outside = (
        ".git/config", ".venv/bin/python", "experiments/full/study.journal", "data/FashionMNIST/raw/images",
        "fleet.yaml", "fleet/ray-cluster.yaml", ".fmnist-secrets/auth_token", "tests/test_deploy.py",
        "search/__pycache__/a.pyc", "cluster/deploy/__pycache__/a.pyc", "cluster.egg-info/PKG-INFO",
    )  # fmt: skip
    root = tmp_path / "root"
    for name in (*inside, *outside):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    sent = exclude_paths(root, files["Dockerfile.dockerignore"].splitlines())
    assert {path for path in sent if (root / path).is_file()} == set(inside)


def test_the_image_is_as_the_settings_say(tmp_path: Path) -> None:
    with_gpus = rendered(parse_settings(changed(), where=""), tmp_path / "fleet")["Dockerfile"]
    assert "TORCH_INDEX_URL" not in with_gpus
    assert "boto3" in with_gpus
    without_any = parse_settings(changed(without("gpu_workers", "ray_up"), with_(torch="cpu")), where="")
    text = rendered(without_any, tmp_path / "fleet")["Dockerfile"]
    assert '--index-url "${TORCH_INDEX_URL:?' in text
    assert "boto3" not in text
    assert "\nUSER 1000\n" in text
    assert "FMNIST_EXPERIMENTS_DIR=/shared/experiments" in text


# The settings.


def test_the_example_is_read_and_every_setting_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(example_settings())
    settings = read_settings(path)
    assert settings == parse_settings(changed(), where="")
    assert settings.cpu_workers is not None
    with pytest.raises(ValueError, match="frozen"):
        settings.cpu_workers.max = 3


_WRONG: list[tuple[Callable[[Raw], None], str]] = [
    (with_(name="Fleet"), "name: must be 1 to 40 of a-z, 0-9 and '-', the first a letter, the last no '-', but"),
    (with_(image="fmnist-search"), "image: must be NAME:TAG, the tag not 'latest', so that all nodes run the same"),
    (with_(image="fmnist-search:latest"), "but got 'fmnist-search:latest'"),
    (with_(image="a b:1"), "image: must be NAME:TAG"),
    (with_(torch="rocm"), "torch: Input should be 'cuda' or 'cpu', but got 'rocm'"),
    (with_(torch="cpu"), "torch: must be cuda, as there are gpu_workers, but got 'cpu'"),
    (with_(colour="red"), "unknown key 'colour'; valid: name, image, torch, idle_timeout_s, head,"),
    (with_(cpu_workers__gpus=1), "unknown key 'cpu_workers.gpus'; valid: cpus, memory, instance_type, min, max, spot"),
    (without("name"), "name is missing"),
    (without("head.cpus"), "head.cpus is missing"),
    (without("cpu_workers", "gpu_workers"), "give cpu_workers, gpu_workers or both: the head runs no trials"),
    (with_(cpu_workers__min=0, job__set={}), "cpu_workers.min or gpu_workers.min must be 1 or more, or job.set have"),
    (with_(cpu_workers__min=9), "cpu_workers: min <= max must hold, but got min=9, max=8"),
    (with_(cpu_workers__max=0), "cpu_workers.max: Input should be greater than or equal to 1, but got 0"),
    (with_(cpu_workers__cpus="8"), "cpu_workers.cpus: Input should be a valid integer, but got '8'"),
    (with_(cpu_workers__cpus=True), "cpu_workers.cpus: Input should be a valid integer, but got True"),
    (with_(cpu_workers__spot="yes"), "cpu_workers.spot: Input should be a valid boolean, but got 'yes'"),
    (with_(head__memory="16GB"), "head.memory: must be an amount such as 512Mi or 16Gi, but got '16GB'"),
    (with_(head__memory=16), "head.memory: Input should be a valid string, but got 16"),
    (with_(head=None), "head: Input should be"),
    (without("cpu_workers.instance_type"), "cpu_workers.instance_type is missing, which ray_up needs"),
    (with_(gpu_workers__accelerator_type="a10"), "gpu_workers.accelerator_type: must be what Ray calls a GPU"),
    (with_(storage__experiments_dir="experiments"), "storage.experiments_dir: must be a full path of letters, digits,"),
    (with_(storage__experiments_dir="/a/../b"), "storage.experiments_dir: must be a full path"),
    (with_(storage__experiments_dir="http://a/b"), "or s3://BUCKET/FOLDER, or gs://BUCKET/FOLDER, but got 'http://a/b'"),
    (with_(storage__experiments_dir="/elsewhere"), "storage: experiments_dir must be in shared_folder, as all"),
    (without("storage.shared_folder"), "storage: experiments_dir must be in shared_folder"),
    (
        with_(storage__experiments_dir="s3://bucket/a", storage__data_dir="/data"),
        "storage: shared_folder: neither experiments_dir nor data_dir is in /shared; leave it out",
    ),
    (with_(storage__experiments_dir="s3://bucket/a"), "ray_up.worker_instance_profile is missing, by which"),
    (with_(storage__experiments_dir="gs://bucket/a"), "ray_up's nodes on AWS have no access to gs://…; valid: s3://…"),
    (with_(storage__study_storage="sqlite:///a.db"), "storage.study_storage: must be postgresql://[USER@]HOST[:PORT]/"),
    (with_(storage__study_storage="postgresql://u:secret@h/d"), "storage.study_storage: must be postgresql://[USER@]HOST"),
    (without("kubernetes.database_secret"), "kubernetes.database_secret is missing, which holds the password"),
    (without("kubernetes.token_secret"), "kubernetes.token_secret is missing"),
    (without("kubernetes.spot_label"), "kubernetes.spot_label is missing, by which spot nodes are known"),
    (with_(kubernetes__spot_label={}), "kubernetes.spot_label: Dictionary should have at least 1 item"),
    (with_(kubernetes__gpu_label={"a b": "c"}), "must be a label's key, such as karpenter.sh/capacity-type"),
    (without("kubernetes", "ray_up"), "give ray_up, kubernetes or both, or there is nothing to render"),
    (without("ray_up.nfs"), "ray_up.nfs is missing, which becomes storage.shared_folder"),
    (with_(ray_up__region="Oregon"), "ray_up.region: must be a region, such as us-west-2, but got 'Oregon'"),
    (with_(ray_up__ami="ubuntu"), "ray_up.ami: must be an image of machines, such as ami-"),
    (with_(ray_up__nfs="server"), "ray_up.nfs: must be SERVER:/PATH, but got 'server'"),
    (with_(ray_up__nfs="s:/$(reboot)"), "ray_up.nfs: must be SERVER:/PATH"),
    (with_(job__config="/shared/a.yaml"), "job: give either preset or config"),
    (without("job.preset"), "job: give either preset or config"),
    (with_(job__set={"lr": [1]}), "job.set.lr: must be one value, as on a command line, but got [1]"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), _WRONG, ids=[message[:50] for _, message in _WRONG])
def test_a_wrong_setting_is_refused_with_one_message(change: Callable[[Raw], None], message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        parse_settings(changed(change), where="fleet.yaml")
    told = str(caught.value)
    assert told.startswith("fleet.yaml: ")
    assert message in told
    assert told.count("\n") == 0
    assert "secret@" not in told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must map keys to values, but holds NoneType"),
        (b"- 1", "must map keys to values, but holds list: '[1]'"),
        (b"a: [", "is not YAML: while parsing"),
        (b"name: a\nname: b", "the key 'name' is there twice"),
        (b"? [a]\n: 1", "must map|is not YAML|unknown key|missing"),
        (b"a: 2026-99-99", "line 1: a: 2026-99-99: 2026-99-99 is a date in YAML"),
        (b"!!python/object/apply:os.system [reboot]", "is not YAML: could not determine a constructor"),
        (b"\xff", "cannot be read: not UTF-8 text"),
        (b"#" * 2**17, "is larger than 64 KiB"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClusterError, match=re.escape(str(path))) as caught:
        read_settings(path)
    assert re.search(message if "|" in message else re.escape(message), str(caught.value))


# Any settings.

_NAMES = st.from_regex("[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
_FOLDERS = st.lists(st.from_regex("[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True), min_size=1, max_size=3)
_LABELS = st.dictionaries(st.from_regex("[a-z]{1,9}/[a-z]{1,9}", fullmatch=True), _NAMES, min_size=1, max_size=2)


@st.composite
def fleets(draw: st.DrawFn) -> Raw:
    raw = changed()
    raw |= {"name": draw(_NAMES), "image": f"{draw(_NAMES)}:{draw(st.integers(0, 99))}.{draw(st.integers(0, 99))}"}
    raw["idle_timeout_s"] = draw(st.integers(30, 86_400))
    for kind in ("cpu_workers", "gpu_workers"):
        highest = draw(st.integers(1, 10_000))
        raw[kind] |= {"max": highest, "min": draw(st.integers(1, highest)), "spot": draw(st.booleans())}
        raw[kind] |= {"cpus": draw(st.integers(1, 1024)), "memory": f"{draw(st.integers(1, 9999))}Gi"}
    raw["gpu_workers"] |= {"gpus": draw(st.integers(1, 64)), "accelerator_type": draw(st.sampled_from(["L4", "H100"]))}
    shared, inside = (f"/{'/'.join(draw(_FOLDERS))}" for _ in range(2))
    raw["storage"] |= {"shared_folder": shared, "experiments_dir": shared + inside, "data_dir": f"/{draw(_NAMES)}"}
    raw["job"] = {"name": "x", "preset": "quickstart", "set": {"name": draw(st.text(max_size=20) | st.booleans())}}
    raw["kubernetes"] |= {"spot_label": draw(_LABELS), "gpu_label": draw(_LABELS)}
    for key in draw(st.sampled_from([(), ("cpu_workers",), ("gpu_workers",), ("ray_up",), ("kubernetes",)])):
        del raw[key]
    return raw


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(raw=fleets())
def test_whatever_the_settings_are_what_is_rendered_is_valid_and_says_the_same(raw: Raw) -> None:
    fleet = parse_settings(raw, where="fleet.yaml")
    with tempfile.TemporaryDirectory() as folder:
        files = rendered(fleet, Path(folder) / "fleet")
    if fleet.ray_up is not None:
        check_ray_up(files["ray-cluster.yaml"], fleet)
    if fleet.kubernetes is not None:
        check_kuberay(files, fleet)
    value = raw["job"]["set"]["name"]
    assert f"name={str(value).lower() if isinstance(value, bool) else value}" in shlex.split(entrypoint(fleet))


# The search that it runs, and the command that renders it.


def test_the_command_line_of_the_job_is_one_that_there_is(fleet: Settings) -> None:
    words = shlex.split(entrypoint(fleet))
    command: Any = typer.main.get_command(app)
    assert words.pop(0) == "fmnist"
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    parsed = command.make_context("fmnist search run", words).params
    assert parsed["name"] == fleet.job.name
    assert parsed["address"] == "auto"
    assert parsed["experiments_dir"]
    assert parsed["preset"] == fleet.job.preset
    assert str(parsed["config_file"] or "") == (fleet.job.config or "")


@pytest.fixture
def command() -> Callable[..., Any]:
    runner, only = CliRunner(), typer.Typer()
    only.command()(render_command)
    return lambda *words: runner.invoke(only, [str(word) for word in words])


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(example_settings())
    return path


def test_rendering_shows_the_files_and_what_to_do_next(
    command: Callable[..., Any], settings_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "fleet"
    folder.parent.mkdir()
    shown = command(settings_file, "--output", folder)
    assert shown.exit_code == 0, shown.output
    for name in ("Dockerfile", "ray-cluster.yaml", "kuberay/ray-job.yaml", "kuberay/experiments-volume.yaml"):
        assert (folder / name).is_file()
        assert f"wrote {folder / name}" in shown.output
    for step in ("docker build --file", "ray up ", "ray job submit ", "kubectl create secret", "kubectl apply -f"):
        assert step in shown.output
    assert [path.name for path in folder.parent.iterdir()] == ["fleet"]
    values = json.loads(command(settings_file, "--output", folder, "--json").output)
    assert {Path(path) for path in values["files"]} == {path for path in folder.rglob("*") if path.is_file()}
    assert values["commands"]["with ray up"][2] == f"ray up {folder}/ray-cluster.yaml"


def test_the_example_that_is_printed_renders(command: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(command("--example").output)
    assert command(path, "--output", tmp_path / "fleet").exit_code == 0
    with pytest.raises(ClusterError, match="name a settings file"):
        raise command().exception


def test_rendering_again_leaves_nothing_of_before(settings_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    render(read_settings(settings_file), folder)
    files = render(parse_settings(changed(without("ray_up"), with_(image="other:2")), where=""), folder)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    assert "ray-cluster.yaml" not in {path.name for path in folder.iterdir()}
    assert "other:2" in (folder / "kuberay" / "ray-job.yaml").read_text()


@pytest.mark.parametrize("name", ["notes.txt", "kuberay/mine.yaml", "Dockerfile"])
def test_a_folder_with_anything_else_in_it_is_left_alone(name: str, settings_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    render(read_settings(settings_file), folder)
    (folder / name).write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ClusterError, match=f"holds {name}, which was not rendered; valid: a new folder"):
        render(parse_settings(changed(with_(name="other")), where=""), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_link_is_followed_and_a_file_or_a_missing_parent_is_no_place_for_a_folder(
    settings_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    files = render(read_settings(settings_file), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert all(path.is_relative_to(tmp_path / "link") and path.is_file() for path in files)
    os.mkfifo(tmp_path / "pipe")
    for path in (settings_file, tmp_path / "pipe", Path("-")):
        with pytest.raises(ClusterError, match=f"{path.name} is not a folder"):
            render(read_settings(settings_file), path)
    with pytest.raises(ClusterError, match=f"there is no folder {tmp_path / 'none'}; make it first"):
        render(read_settings(settings_file), tmp_path / "none" / "fleet")
    assert not (tmp_path / "none").exists()
    assert not Path("-").exists()
    (tmp_path / "real" / "link").symlink_to(settings_file)
    with pytest.raises(ClusterError, match="holds link, which was not rendered"):
        render(read_settings(settings_file), tmp_path / "real")


def test_when_the_disk_is_full_what_was_there_stays(
    settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fleet"
    render(read_settings(settings_file), folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write = Path.write_text

    def fail(path: Path, *args: Any, **kwargs: Any) -> int:
        if path.name == "ray-job.yaml":
            raise OSError(28, "No space left on device", str(path))
        return write(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space left"):
        render(parse_settings(changed(with_(name="other")), where=""), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fleet", "fleet.yaml"]


def test_nothing_rendered_names_a_server_or_a_folder_of_this_machine(fleet: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "fleet"
    for path in render(fleet, folder):
        text = path.read_text()
        assert not re.search("https?://", text)
        assert str(ROOT) not in text
        assert str(Path.home()) not in text
        assert str(tmp_path) not in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_commands_that_are_shown_are_a_shells(fleet: Settings) -> None:
    for lines in next_commands(fleet, Path("a folder") / "fleet").values():
        for line in lines:
            done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert "a folder" not in line.replace("'a folder", "")
