"""Models of scikit-learn, trained on its own data and converted by skl2onnx."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler, Normalizer, StandardScaler
from torch import nn

from tests.support.onnx_models import answers, read, runtime
from worker.engine.errors import Unsupported
from worker.engine.formats.lift import quiet_export

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("sklearn")]

PIPELINES = {
    "logistic": ("digits", lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=30))),
    "binary": ("binary", lambda: make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=30))),
    "perceptron": ("digits", lambda: make_pipeline(StandardScaler(), MLPClassifier((32,), max_iter=5))),
    "binary perceptron": ("binary", lambda: make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=5))),
    "ridge": ("digits", lambda: make_pipeline(Binarizer(), RidgeClassifier())),
    "regression": ("diabetes", lambda: make_pipeline(SimpleImputer(), Normalizer(), LinearRegression())),
    "neural regression": (
        "diabetes",
        lambda: make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(16,), max_iter=5)),
    ),
}


def data(name):
    x, y = load_diabetes(return_X_y=True) if name == "diabetes" else load_digits(return_X_y=True)
    return x.astype(np.float32), (y > 4).astype(int) if name == "binary" else y


def convert(pipeline, x, zipmap=False):
    from skl2onnx import to_onnx

    options = {id(pipeline): {"zipmap": zipmap}} if hasattr(pipeline, "predict_proba") else None
    return to_onnx(pipeline, x[:1], options=options)


@pytest.mark.parametrize("name", list(PIPELINES))
def test_agrees_with_onnx_runtime(tmp_path, name):
    source, make = PIPELINES[name]
    x, y = data(source)
    content = convert(make().fit(x, y), x)
    network = read(content, tmp_path)
    for got, want in zip(answers(network, x[:100]), runtime(content, x[:100]), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
    assert any(isinstance(layer, nn.Linear) for layer in network.module.modules())
    quiet_export(network.module, (torch.from_numpy(x[:4]),), None)


def test_dictionaries_of_probabilities_become_a_tensor(tmp_path):
    x, y = data("digits")
    content = convert(make_pipeline(StandardScaler(), LogisticRegression(max_iter=30)).fit(x, y), x, zipmap=True)
    network = read(content, tmp_path)
    labels, rows = runtime(content, x[:20])
    got_labels, got = answers(network, x[:20])
    np.testing.assert_array_equal(got_labels, labels)
    np.testing.assert_allclose(got, [list(row.values()) for row in rows], atol=1e-5)
    assert any("ZipMap" in note for note in network.notes)


def test_classes_that_are_strings_are_refused_with_advice(tmp_path):
    x, y = data("digits")
    names = np.array([f"digit {value}" for value in y])
    content = convert(make_pipeline(StandardScaler(), LogisticRegression(max_iter=5)).fit(x, names), x)
    with pytest.raises(Unsupported, match="integer classes"):
        read(content, tmp_path)


def test_forests_are_refused_by_name(tmp_path):
    x, y = data("digits")
    content = convert(RandomForestClassifier(3).fit(x, y), x)
    with pytest.raises(Unsupported, match="TreeEnsembleClassifier"):
        read(content, tmp_path)
