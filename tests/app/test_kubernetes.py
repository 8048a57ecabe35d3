"""The manifests for Kubernetes: right by the schemas of Kubernetes, and in step with images, settings and tables."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sqlalchemy import create_engine, text

from app.config import Settings
from app.embedded.programs import API_GRACE_S
from app.migrate import upgrade
from app.queue import QUEUES

ROOT = Path(__file__).parents[2]
HOME = ROOT / "deploy/kubernetes"
MANIFESTS = [path for path in sorted(HOME.rglob("*.yaml")) if path.name != "kustomization.yaml"]
KUSTOMIZATIONS = sorted(HOME.rglob("kustomization.yaml"))
Document = dict[str, Any]


def documents() -> list[Document]:
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def pods() -> dict[str, Document]:
    kinds = ("Deployment", "Job")
    return {
        found["metadata"]["name"]: found["spec"]["template"]["spec"] for found in documents() if found["kind"] in kinds
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(HOME)))
def test_manifests_are_what_kubernetes_takes(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if not document["apiVersion"].startswith("keda.sh/"):  # a resource of its own, with no schema of Kubernetes'
            kubernetes_validate.validate(document, "1.34", strict=True)


def test_kustomizations_name_files_that_are_there_and_leave_none_out() -> None:
    named = set()
    for path in KUSTOMIZATIONS:
        for resource in yaml.safe_load(path.read_text())["resources"]:
            target = (path.parent / resource).resolve()
            assert target.exists(), resource
            named.add(target)
    left_out = {path.resolve() for path in MANIFESTS} - named
    assert {path.name for path in left_out} == {"secret.example.yaml"}


def test_images_are_stages_of_the_dockerfile() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    assert {image.removeprefix("modelpress-") for image in images} <= stages
    tagged = {image["name"] for path in KUSTOMIZATIONS for image in yaml.safe_load(path.read_text()).get("images", [])}
    assert tagged == images


def test_settings_exist() -> None:
    given = [container.get("env", []) for pod in pods().values() for container in pod["containers"]]
    names = {entry["name"] for entries in given for entry in entries}
    for found in documents():
        if found["kind"] in ("ConfigMap", "Secret"):
            names |= set(found.get("data", found.get("stringData")))
    ours = {name.removeprefix("MODELPRESS_").lower() for name in names if name.startswith("MODELPRESS_")}
    assert ours <= set(Settings.model_fields)
    assert {"database_url", "broker_url", "store_url", "key_pepper", "job_memory_bytes"} <= ours


@pytest.mark.parametrize("name", sorted(pods()))
def test_walls_stand(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]


def test_each_worker_serves_a_queue_and_a_job_fits_its_container() -> None:
    workers = {name: pod for name, pod in pods().items() if name.startswith("worker-")}
    assert {pod["containers"][0]["args"][2] for pod in workers.values()} == set(QUEUES)
    for pod in workers.values():
        container = pod["containers"][0]
        memory = next(int(entry["value"]) for entry in container["env"] if entry["name"].endswith("MEMORY_BYTES"))
        limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 2**30
        assert limit - 2 * 2**30 < memory < limit
        assert pod["terminationGracePeriodSeconds"] >= 60


def test_probes_ask_for_paths_that_there_are() -> None:
    probes = pods()["api"]["containers"][0]
    paths = {probes[kind]["httpGet"]["path"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"/healthz"}


def settings() -> dict[str, str]:
    return next(found for found in documents() if found["kind"] == "ConfigMap")["data"]


def test_api_pods_serve_on_while_proxies_learn_that_they_go() -> None:
    drain_s = float(settings()["MODELPRESS_DRAIN_S"])
    assert drain_s >= 10
    assert pods()["api"]["terminationGracePeriodSeconds"] > drain_s + API_GRACE_S


def test_prometheus_reaches_the_api_and_has_a_token() -> None:
    secret = next(found for found in documents() if found["kind"] == "Secret")
    assert "MODELPRESS_METRICS_TOKEN" in secret["stringData"]
    let_in = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for found in documents()
        if found["kind"] == "NetworkPolicy"
        for rule in found["spec"].get("ingress", [])
        for peer in rule["from"]
    }
    assert let_in == {"ingress-nginx", "monitoring"}


def test_the_query_that_scales_runs(empty_database_url: str) -> None:
    upgrade(empty_database_url)
    scaled = next(found for found in documents() if found["kind"] == "ScaledObject")
    engine = create_engine(empty_database_url)
    with engine.connect() as connection:
        assert connection.execute(text(scaled["spec"]["triggers"][0]["metadata"]["query"])).scalar() == 0
    engine.dispose()
    assert scaled["spec"]["scaleTargetRef"]["name"] in pods()
