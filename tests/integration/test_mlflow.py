"""The integration with MLflow: a version out of a real registry, compressed by a running service, and registered."""

import hashlib
import io
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelpress import Client, ConfigurationError, JobFailed, NoModel

from benchmarks.demo import free_port
from tests.support.digits import Digits, DigitsNet
from tests.support.service import Service, wait_until

pytestmark = [pytest.mark.xdist_group("service"), pytest.mark.filterwarnings("ignore")]

LIMITS: Any = {"max_metric_drop": 0.02, "max_size_ratio": 0.5}


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running ``mlflow server`` with an empty registry."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    stores = ("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files"))
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    argv = [sys.executable, "-m", "mlflow", "server", *stores, *where]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(ready, 120, "mlflow server")
        yield url
    finally:
        os.killpg(process.pid, 15)  # it has workers
        process.wait(30)


@pytest.fixture
def client(running_service: Service) -> Iterator[Client]:
    with Client(running_service.url, running_service.key()) as made:
        yield made


@pytest.fixture
def mlflow(mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, set to the server."""
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    mlflow.set_tracking_uri(mlflow_server)
    yield mlflow
    mlflow.set_tracking_uri(None)


@pytest.fixture
def data(folder: Path) -> dict[str, Path]:
    return {role: folder / f"{role}.npz" for role in ("calibration", "evaluation")}


@pytest.fixture(scope="module")
def network(digits: Digits) -> DigitsNet:
    network = DigitsNet()
    network.load_state_dict(torch.export.load(io.BytesIO(digits.model)).state_dict)
    return network.eval()


def log_onnx(mlflow: Any, network: DigitsNet, name: str) -> str:
    """Registers the network with MLflow's own flavor for ONNX, as its users do."""
    example = (torch.zeros(2, 1, 8, 8),)
    batch = ({0: torch.export.Dim.DYNAMIC},)
    model = torch.onnx.export(network, example, dynamic_shapes=batch, dynamo=True, verbose=False).model_proto
    logged = mlflow.onnx.log_model(model, name="model", registered_model_name=name)
    return f"models:/{name}/{logged.registered_model_version}"


def test_a_version_is_compressed_and_registered(
    mlflow: Any,
    client: Client,
    network: DigitsNet,
    digits: Digits,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow.onnx
    from modelpress.integrations.mlflow import compress, register

    source = log_onnx(mlflow, network, "digits")
    registry = mlflow.MlflowClient()
    registry.set_registered_model_alias("digits", "champion", "1")
    mlflow.register_model(registry.get_model_version("digits", "1").source, "digits")
    wait = client.jobs.wait

    def while_the_alias_moves(job_id: str) -> Any:
        registry.set_registered_model_alias("digits", "champion", "2")
        return wait(job_id)

    monkeypatch.setattr(client.jobs, "wait", while_the_alias_moves)
    made = compress(
        client, "models:/digits@champion", recipe="preset:fast", targets=["onnxruntime"], limits=LIMITS, seed=3, **data
    )
    version = made.versions["onnxruntime"]
    artifact = made.job.artifact("onnxruntime")
    assert (version.name, version.version) == ("digits-onnxruntime", "1")
    assert version.tags["modelpress.source_model"] == source
    assert version.tags["modelpress.job_id"] == made.job.id
    assert version.tags["modelpress.gate"] == "passed"
    tags = registry.get_model_version("digits", "1").tags
    assert tags["modelpress.compressed.onnxruntime"] == "models:/digits-onnxruntime/1"

    run = mlflow.get_run(version.run_id)
    (came_from,) = run.inputs.model_inputs
    assert mlflow.get_logged_model(came_from.model_id).model_uri == registry.get_model_version("digits", "1").source
    measured = run.data.metrics
    assert measured["size_ratio"] < LIMITS["max_size_ratio"]
    assert measured["accuracy"] == pytest.approx(measured["baseline_accuracy"] - measured["metric_drop"], abs=1e-6)
    assert measured["latency_p50_ms"] > 0
    assert run.data.params["methods"] == "quantize.static"
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/recipe.json") == made.job.recipe

    here = Path(mlflow.artifacts.download_artifacts("models:/digits-onnxruntime/1", dst_path=str(tmp_path / "there")))
    assert hashlib.sha256((here / str(artifact.filename)).read_bytes()).hexdigest() == artifact.sha256
    assert json.loads((here / "provenance" / "manifest.json").read_text())["target"] == "onnxruntime"
    loaded = mlflow.pyfunc.load_model("models:/digits-onnxruntime/1")
    (scores,) = loaded.predict({"image": digits.images}).values()
    assert (np.argmax(scores, 1) == digits.labels).mean() == pytest.approx(measured["accuracy"], abs=0.003)

    again = register(made.job, source)["onnxruntime"]
    assert again.version == "1"
    assert len(registry.search_model_versions("name = 'digits-onnxruntime'")) == 1
    with pytest.raises(ConfigurationError, match="was made of models:/digits/1, not of models:/digits/2"):
        register(made.job, "models:/digits/2")

    with monkeypatch.context() as broken:
        broken.setattr(mlflow, "log_metrics", failing)
        with pytest.raises(ConnectionError):
            register(made.job, source, name="late-{target}")
    assert registry.search_registered_models("name = 'late-onnxruntime'") == []
    late = register(made.job, source, name="late-{target}")["onnxruntime"]
    assert mlflow.get_run(late.run_id).data.metrics["size_ratio"] == measured["size_ratio"]
    tags = registry.get_model_version("digits", "1").tags
    assert tags["modelpress.compressed.onnxruntime"] == "models:/late-onnxruntime/1"


def failing(*_: Any, **__: Any) -> None:
    raise ConnectionError("the tracking server is gone")


@pytest.mark.slow
def test_a_broken_limit_registers_nothing(
    mlflow: Any, client: Client, network: DigitsNet, data: dict[str, Path]
) -> None:
    import mlflow.onnx
    from modelpress.integrations.mlflow import compress

    source = log_onnx(mlflow, network, "strict")
    with pytest.raises(JobFailed, match="limits_not_met") as failed:
        compress(
            client,
            source,
            recipe="preset:fast",
            targets=["onnxruntime"],
            limits={"max_size_ratio": 0.01},
            name="{name}-int8",
            **data,
        )
    assert failed.value.job.gate is not None
    assert not failed.value.job.gate.passed
    registry = mlflow.MlflowClient()
    assert registry.search_registered_models("name = 'strict-int8'") == []
    assert "modelpress.compressed.onnxruntime" not in registry.get_model_version("strict", "1").tags


@pytest.mark.slow
def test_an_exported_program_for_a_runtime_that_mlflow_does_not_know(
    mlflow: Any, client: Client, network: DigitsNet, digits: Digits, data: dict[str, Path]
) -> None:
    """A dataset that was uploaded is used as it is; what MLflow has no flavor for is kept as a file with its papers."""
    import mlflow.pytorch
    from modelpress.integrations.mlflow import compress

    example = digits.images[:2]
    mlflow.pytorch.log_model(
        network, name="model", registered_model_name="program", serialization_format="pt2", input_example=example
    )
    targets = ["onnxruntime", "torch"]
    with pytest.raises(ConfigurationError, match="one name"):
        compress(client, "models:/program/1", recipe="preset:fast", targets=targets, name="{name}-int8")
    calibration = client.datasets.upload(data["calibration"])
    made = compress(client, "models:/program/1", recipe="preset:fast", targets=["torch"], calibration=calibration)
    assert made.versions["torch"].name == "program-torch"
    flavors = mlflow.models.get_model_info("models:/program-torch/1").flavors
    assert flavors["modelpress"]["sha256"] == made.job.artifact("torch").sha256
    assert "python_function" not in flavors


@pytest.mark.slow
def test_a_model_of_transformers(mlflow: Any, client: Client) -> None:
    import mlflow.transformers
    import transformers
    from modelpress.integrations.mlflow import compress
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = transformers.BertForSequenceClassification(transformers.BertConfig(vocab_size=8, **sizes))
    mlflow.transformers.log_model(
        {"model": model, "tokenizer": tokenizer},
        name="model",
        task="text-classification",
        registered_model_name="words",
        pip_requirements=["transformers"],
    )
    made = compress(
        client, "models:/words/1", recipe={"steps": [{"method": "quantize.dynamic"}]}, targets=["onnxruntime"]
    )
    assert made.versions["onnxruntime"].name == "words-onnxruntime"


@pytest.mark.slow
def test_what_cannot_be_compressed_is_told_before_anything_is_uploaded(
    mlflow: Any, client: Client, network: DigitsNet, tmp_path: Path
) -> None:
    import mlflow.pytorch
    from modelpress.integrations.mlflow import compress

    mlflow.pytorch.log_model(network, name="model", registered_model_name="pickled", serialization_format="pickle")
    (tmp_path / "MLmodel").write_text("flavors: {transformers: {model_binary: ../../../../etc}}")
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(tmp_path), "model")
    mlflow.register_model(f"runs:/{run.info.run_id}/model", "leading-out")
    before = sum(1 for _ in client.models.list())
    for uri, error in (
        ("models:/pickled/1", NoModel),
        ("models:/leading-out/1", NoModel),
        ("runs:/1/model", ConfigurationError),
    ):
        with pytest.raises(error):
            compress(client, uri, recipe="preset:fast", targets=["onnxruntime"])
    for name in ("{model}-int8", "{name", "{0}", "{name.first}", "{name[0]}", "{name:.3}", "it's {name}", "a/b", ""):
        with pytest.raises(ConfigurationError):
            compress(client, "models:/pickled/1", recipe="preset:fast", targets=["onnxruntime"], name=name)
    assert sum(1 for _ in client.models.list()) == before
