"""One running service for all tests of the whole: ``modelpress-server up`` with everything behind it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.demo import free_port
from tests.support.buckets import running_s3, s3_environment
from tests.support.client import Api
from tests.support.digits import Digits, train_digits
from tests.support.service import Service, serving


@pytest.fixture(scope="package")
def s3() -> Iterator[str]:
    """The address of an S3 service with a bucket `models`."""
    with running_s3("models") as url:
        yield url


@pytest.fixture(scope="package")
def running_service(tmp_path_factory: pytest.TempPathFactory, s3: str) -> Iterator[Service]:
    """It may take files from the bucket."""
    settings = {
        **s3_environment(s3),
        "MODELPRESS_SOURCES": '["s3://models/trained"]',
        "MODELPRESS_S3_ALLOW_HTTP": "true",
    }
    prefix = ("env", *(f"{name}={value}" for name, value in settings.items()))
    with serving(tmp_path_factory.mktemp("service") / "data", free_port(), prefix) as service:
        yield service


@pytest.fixture(scope="package")
def api(running_service: Service) -> Iterator[Api]:
    client = Api(running_service.url, running_service.key())
    yield client
    client.http.close()


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def folder(digits: Digits, tmp_path: Path) -> Path:
    """A trained model and its data, as files."""
    (tmp_path / "model.pt2").write_bytes(digits.model)
    (tmp_path / "calibration.npz").write_bytes(digits.calibration)
    (tmp_path / "evaluation.npz").write_bytes(digits.evaluation)
    return tmp_path


@pytest.fixture(scope="package")
def uploaded(api: Api, digits: Digits) -> dict[str, str]:
    """Ids of the model and its data, checked."""
    model = api.checked("models", digits.model, "digits.pt2")
    calibration = api.checked("datasets", digits.calibration, "calibration.npz", kind="tensors")
    evaluation = api.checked("datasets", digits.evaluation, "evaluation.npz", kind="tensors")
    for view in (model, calibration, evaluation):
        assert view["state"] == "ready", view
    return {
        "model_id": model["id"],
        "calibration_dataset_id": calibration["id"],
        "evaluation_dataset_id": evaluation["id"],
    }
