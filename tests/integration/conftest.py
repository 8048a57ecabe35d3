"""One running service for all tests of the whole: ``modelpress-server up`` with everything behind it."""

from collections.abc import Iterator

import pytest

from benchmarks.demo import free_port
from tests.support.client import Api
from tests.support.digits import Digits, train_digits
from tests.support.service import Service, serving


@pytest.fixture(scope="session")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service") / "data", free_port()) as service:
        yield service


@pytest.fixture(scope="session")
def api(running_service: Service) -> Iterator[Api]:
    client = Api(running_service.url, running_service.key())
    yield client
    client.http.close()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return train_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
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
