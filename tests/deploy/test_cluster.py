"""What is said to Ray and to Kubernetes: valid, alike, and of settings that there are."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from service.cluster.pools import Pools
from service.metrics import Metrics
from service.settings import Settings
from tests.nodes import FLAGS

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVE = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
KUBERAY = yaml.safe_load((DEPLOY / "ray" / "kuberay.yaml").read_text())
PLAIN, PLANT = (
    list(yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()))
    for name in ("kizu.yaml", "plant.yaml")
)
KEDA = yaml.safe_load((DEPLOY / "kubernetes" / "keda.yaml").read_text())
KUBERNETES = "1.35"


def pods() -> dict[str, dict[str, Any]]:
    """Every template of a pod."""
    cluster = KUBERAY["spec"]["rayClusterConfig"]
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    for one in (*PLAIN, *PLANT):
        if one["kind"] in ("Deployment", "StatefulSet"):
            found[f"{one['kind']} {one['metadata']['name']}"] = one["spec"]["template"]
    return found


def variables(container: dict[str, Any]) -> dict[str, str | None]:
    """What a container is given, by itself and by configuration that many share."""
    (shared,) = (one["data"] for one in PLANT if one["kind"] == "ConfigMap")
    own = {one["name"]: one.get("value") for one in container.get("env", [])}
    named = {"configMapRef": {"name": "kizu"}} in container.get("envFrom", [])
    return own | (shared if named else {})


def validate(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "document.yaml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "-k", KUBERNETES, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", PLAIN + PLANT, ids=lambda one: one["kind"])
def test_what_kubernetes_is_told_follows_its_schema(document: dict[str, Any], tmp_path: Path):
    validate(document, tmp_path)


@pytest.mark.parametrize("name", list(pods()))
def test_every_pod_is_one_and_confined(name: str, tmp_path: Path) -> None:
    template = pods()[name]
    labelled = {"labels": {"app": "x"}} | template.get("metadata", {})
    validate(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "x"},
            "spec": {
                "selector": {"matchLabels": labelled["labels"]},
                "template": template | {"metadata": labelled},
            },
        },
        tmp_path,
    )
    spec = template["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        given = variables(container)
        settings = {name[5:].lower() for name in given if name.startswith("KIZU_")}
        assert settings <= set(Settings.model_fields)
        if container["name"].startswith("ray"):
            assert FLAGS.items() <= given.items()


def test_the_services_of_a_plant_follow_the_queue(tmp_path: Path) -> None:
    """What KEDA makes of it is Kubernetes' own, and it asks for a metric that there is."""
    (services,) = (
        one for one in PLANT if one["kind"] == "StatefulSet" and one["metadata"]["name"] == "kizu"
    )
    wanted = KEDA["spec"]
    reference = {"apiVersion": services["apiVersion"], "kind": services["kind"], "name": "kizu"}
    assert wanted["scaleTargetRef"] == reference
    (trigger,) = wanted["triggers"]
    metric = {"name": "queue-age"}
    target = {"type": trigger["metricType"], "value": trigger["metadata"]["threshold"]}
    validate(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "kizu"},
            "spec": {
                "scaleTargetRef": reference,
                "minReplicas": wanted["minReplicaCount"],
                "maxReplicas": wanted["maxReplicaCount"],
                "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
                **wanted["advanced"]["horizontalPodAutoscalerConfig"],
            },
        },
        tmp_path,
    )
    asked = re.findall(r"kizu_\w+", trigger["metadata"]["query"])
    assert asked == ["kizu_queue_age_seconds"]
    assert b"kizu_queue_age_seconds" in generate_latest(Metrics().registry)


def test_ray_is_told_the_same_everywhere() -> None:
    inside = yaml.safe_load(KUBERAY["spec"]["serveConfigV2"])
    (application,), (other,) = SERVE["applications"], inside["applications"]
    variables = application.pop("runtime_env")["env_vars"]
    assert inside == SERVE
    assert {name[5:].lower() for name in variables} <= set(Settings.model_fields)
    Pools.model_validate(other["args"]).check(Settings())
    resources = KUBERAY["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"]["resources"]
    assert json.loads(json.loads(resources)) == other["args"]["front"]["resources"]


def test_rays_own_schema_takes_it() -> None:
    pytest.importorskip("ray")
    checked = (
        "import sys, yaml; from ray.serve.schema import ServeDeploySchema as S;"
        "import importlib; made = S.model_validate(yaml.safe_load(open(sys.argv[1])));"
        "module, name = made.applications[0].import_path.split(':');"
        "getattr(importlib.import_module(module), name)(made.applications[0].args)"
    )
    done = subprocess.run(
        [sys.executable, "-c", checked, DEPLOY / "ray" / "serve.yaml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_flags_are_said_where_ray_is_started() -> None:
    said = (DEPLOY / "README.md").read_text() + (DEPLOY / "ray" / "serve.yaml").read_text()
    for name, value in FLAGS.items():
        assert len(re.findall(rf"\b{name}={value}\b", said)) == 2
