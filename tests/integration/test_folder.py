"""A folder of transformers through the service: uploaded as a zip, calibrated and measured on plain text."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from modelpress import Client, InvalidRequest, JobRequest
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from tests.support.service import Service

pytestmark = pytest.mark.xdist_group("service")  # of test_story.py: one service serves both
WORDS = ["[PAD]", "[UNK]", "the", "red", "green", "blue", "fox", "sees", "a", "dog"]


@pytest.fixture
def client(running_service: Service) -> Iterator[Client]:
    with Client(running_service.url, running_service.key()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A zip of a small BERT and its tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=3,
    )
    saved = tmp_path / "model"
    BertForSequenceClassification(config).save_pretrained(saved)
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(saved / "tokenizer.json"))
    (saved / "modeling_bert.py").write_text("raise SystemExit")
    path = tmp_path / "bert.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in saved.iterdir():
            archive.write(file, f"bert/{file.name}")
    return path


def text(path: Path, count: int) -> Path:
    random = np.random.default_rng(count)
    lines = [" ".join(random.choice(WORDS[2:], int(random.integers(2, 30)))) for _ in range(count)]
    path.write_text("\n".join(lines))
    return path


def test_a_folder_and_text(client: Client, folder: Path, tmp_path: Path) -> None:
    model = client.models.upload(folder)
    calibration = client.datasets.upload(text(tmp_path / "calibration.txt", 64), kind="text")
    evaluation = client.datasets.upload(text(tmp_path / "evaluation.txt", 80), kind="text")
    request = JobRequest(
        model_id=model.id,
        calibration_dataset_id=calibration.id,
        evaluation_dataset_id=evaluation.id,
        recipe={"steps": [{"method": "quantize.static"}]},
        targets=["onnxruntime"],
        limits={"min_sqnr_db": 15},
    )
    job = client.jobs.wait(client.jobs.create(request).id, timeout_s=200)
    assert job.state == "succeeded", client.jobs.logs(job.id)
    checked = client.models.get(model.id)
    assert checked.format == "transformers"
    assert [spec.name for spec in checked.inputs or ()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert job.metrics is not None and job.metrics.artifacts is not None and job.artifacts is not None
    assert job.metrics.artifacts["onnxruntime"].evaluation.samples == 80
    file = client.artifacts.download(job.artifacts[0].id, tmp_path)
    session = onnxruntime.InferenceSession(str(file))
    ids = np.full((3, 7), 4, np.int64)
    (scores,) = session.run(
        None, {value.name: ids if value.name == "input_ids" else ids // 4 for value in session.get_inputs()}
    )
    assert scores.shape == (3, 3) and np.isfinite(scores).all()


def test_text_for_a_model_without_a_tokenizer(client: Client, tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Linear(4, 2), (torch.zeros(2, 4),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "net.pt2")
    model = client.models.upload(tmp_path / "net.pt2")
    dataset = client.datasets.upload(text(tmp_path / "x.txt", 20), kind="text")
    client.models.wait(model.id)
    request = JobRequest(
        model_id=model.id,
        calibration_dataset_id=dataset.id,
        recipe={"steps": [{"method": "quantize.static"}]},
        targets=["onnxruntime"],
    )
    with pytest.raises(InvalidRequest) as caught:
        client.jobs.create(request)
    assert "dataset_kind_unsupported" in str(caught.value)
