"""What is said to Ray and to Kubernetes: valid, alike, and of settings that there are."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.cluster.pools import Pools
from service.settings import Settings
from tests.nodes import FLAGS

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVE = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
KUBERAY = yaml.safe_load((DEPLOY / "ray" / "kuberay.yaml").read_text())
PLAIN = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "kizu.yaml").read_text()))
KUBERNETES = "1.35"


def pods() -> dict[str, dict[str, Any]]:
    """Every template of a pod."""
    cluster = KUBERAY["spec"]["rayClusterConfig"]
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    (deployment,) = (one for one in PLAIN if one["kind"] == "Deployment")
    return found | {"plain": deployment["spec"]["template"]}


def validate(document: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "document.yaml"
    file.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [Path(sys.executable).with_name("kubernetes-validate"), "--strict", "-k", KUBERNETES, file],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", PLAIN, ids=lambda one: one["kind"])
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
        given = {one["name"]: one.get("value") for one in container["env"]}
        settings = {name[5:].lower() for name in given if name.startswith("KIZU_")}
        assert settings <= set(Settings.model_fields)
        if name != "plain":
            assert FLAGS.items() <= given.items()


def test_ray_is_told_the_same_everywhere() -> None:
    inside = yaml.safe_load(KUBERAY["spec"]["serveConfigV2"])
    (application,), (other,) = SERVE["applications"], inside["applications"]
    variables = application.pop("runtime_env")["env_vars"]
    assert inside == SERVE
    assert {name[5:].lower() for name in variables} <= set(Settings.model_fields)
    Pools.model_validate(other["args"]).check()
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
