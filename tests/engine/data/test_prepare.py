"""Fitting datasets to a model: names, types, shapes, labels, and what is held back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.data.labels import task_of
from worker.engine.data.prepare import prepare
from worker.engine.data.split import indices
from worker.engine.errors import UserError
from worker.engine.network import TensorSpec

IMAGE = TensorSpec("image", "float32", ("batch", 1, 4, 4))
SCORES = TensorSpec("scores", "float32", ("batch", 3))
VALUE = TensorSpec("value", "float32", ("batch", 1))


def images(samples: int = 40) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(samples, 1, 4, 4)).astype(np.float32)


def save(path: Path, **columns: np.ndarray) -> Path:
    np.savez(path, **columns)
    return path


def prepared(tmp_path: Path, *, inputs=(IMAGE,), outputs=(SCORES,), task=None, seed=0, **files: dict[str, np.ndarray]):
    paths = {role: save(tmp_path / f"{role}.npz", **columns) for role, columns in files.items()}
    return prepare(paths, (inputs, outputs), task, seed, tmp_path / "scratch")


@pytest.mark.parametrize(
    ("columns", "code", "words"),
    [
        ({"picture": images()}, "dataset_columns_mismatch", ["'picture'", "'image'", "'input'"]),
        ({"image": images(), "lable": np.zeros(40, int)}, "dataset_columns_mismatch", ["'lable'", "'label'"]),
        ({"label": np.zeros(40, int)}, "dataset_columns_mismatch", ["Missing: 'image'"]),
        ({"image": images().astype(np.float64)}, "dataset_dtype_mismatch", ["float64", "astype('float32')"]),
        ({"image": images().astype(np.uint8)}, "dataset_dtype_mismatch", ["uint8"]),
        ({"image": images()[:, 0]}, "dataset_shape_mismatch", ["(40, 4, 4)", "(samples, 1, 4, 4)"]),
        ({"image": images()[..., :3]}, "dataset_shape_mismatch", ["(40, 1, 4, 3)"]),
        ({"image": images(7)}, "dataset_too_few_samples", ["7", "8"]),
        ({"image": images(), "label": np.full(40, 3)}, "labels_out_of_range", ["3", "0 to 2"]),
        ({"image": images(), "label": np.full(40, -1)}, "labels_out_of_range", ["-1"]),
    ],
)
@pytest.mark.parametrize("role", ["calibration", "evaluation", "training"])
def test_what_does_not_fit_is_refused(tmp_path: Path, columns: dict, code: str, words: list[str], role: str) -> None:
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, **{role: columns})
    assert caught.value.code == code
    for word in [*words, *([role] if code.startswith("dataset") else [])]:
        assert word in caught.value.detail


def test_column_input_serves_a_model_with_one_input(tmp_path: Path) -> None:
    assert set(prepared(tmp_path, calibration={"input": images()}).split.calibration.inputs) == {"image"}


def test_two_inputs_share_symbolic_dimensions(tmp_path: Path) -> None:
    ids = TensorSpec("ids", "int64", ("batch", "length"))
    mask = TensorSpec("mask", "bool", ("batch", "length"))
    good = {"ids": np.zeros((9, 5), np.int64), "mask": np.ones((9, 5), bool)}
    made = prepared(tmp_path, inputs=(ids, mask), calibration=good)
    assert made.split.calibration.inputs["mask"].shape[1:] == (5,)
    with pytest.raises(UserError, match="dataset_shape_mismatch"):
        prepared(tmp_path, inputs=(ids, mask), calibration={**good, "mask": np.ones((9, 4), bool)})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"label_ink": np.full(40, 3)}, ["column 'label_ink'", "output 'ink'"]),
        ({"label_other": np.zeros(40, int)}, ["optionally 'label', 'label_ink'", "'label_other'"]),
    ],
)
def test_labels_of_a_further_output_are_named(tmp_path: Path, more: dict[str, np.ndarray], words: list[str]) -> None:
    ink = TensorSpec("ink", "float32", ("batch", 3))
    with pytest.raises(UserError) as caught:
        prepared(tmp_path, outputs=(SCORES, ink), training={"image": images(), "label": np.arange(40) % 3, **more})
    assert all(word in caught.value.detail for word in words)


def test_an_input_named_label_is_an_input(tmp_path: Path) -> None:
    spec = TensorSpec("label", "float32", ("batch", 2))
    made = prepared(tmp_path, inputs=(spec,), calibration={"label": np.zeros((9, 2), np.float32)})
    assert made.split.calibration.labels is None


def test_batch_of_one_takes_samples_without_it(tmp_path: Path) -> None:
    single = TensorSpec("image", "float32", (1, 1, 4, 4))
    made = prepared(tmp_path, inputs=(single,), outputs=(TensorSpec("scores", "float32", (1, 3)),),
                    evaluation={"image": images(), "label": np.zeros(40, int)})  # fmt: skip
    assert made.measured == "classification"


@pytest.mark.parametrize("shape", [(4, 1, 4, 4), ()])
def test_other_fixed_batches_are_refused(tmp_path: Path, shape: tuple) -> None:
    with pytest.raises(UserError, match="fixed_batch_unsupported"):
        prepared(tmp_path, inputs=(TensorSpec("image", "float32", shape),))


@pytest.mark.parametrize(
    ("labels", "outputs", "task", "expected"),
    [
        (np.array([0, 2]), SCORES, None, "classification"),
        (np.array([True, False]), SCORES, None, "classification"),
        (np.array([0.5, 2.0]), VALUE, None, "regression"),
        (np.array([[0.5], [2.0]]), VALUE, None, "regression"),
        (np.array([1, 2]), VALUE, None, "regression"),
        (np.zeros((2, 3)), SCORES, None, "regression"),
        (np.array([1, 2]), SCORES, "embedding", "embedding"),
    ],
)
def test_task_is_told_from_labels(labels: np.ndarray, outputs: TensorSpec, task: str | None, expected: str) -> None:
    assert task_of(labels, outputs, task) == expected


@pytest.mark.parametrize(
    ("labels", "outputs", "task", "code"),
    [
        (np.array([0.0, 2.0]), SCORES, "classification", "labels_dtype_mismatch"),
        (np.eye(3), SCORES, "classification", "labels_shape_mismatch"),
        (np.array([0, 1]), VALUE, "classification", "labels_shape_mismatch"),
        (np.array([0.1, 0.2]), SCORES, None, "labels_shape_mismatch"),
        (np.zeros((2, 4)), SCORES, None, "labels_shape_mismatch"),
        (np.array([0, 3]), SCORES, None, "labels_out_of_range"),
    ],
)
def test_labels_that_cannot_be(labels: np.ndarray, outputs: TensorSpec, task: str | None, code: str) -> None:
    with pytest.raises(UserError, match=code) as caught:
        task_of(labels, outputs, task, "label_second")
    assert "olumn 'label_second'" in caught.value.detail


def labelled(samples: int = 40) -> dict[str, np.ndarray]:
    data = images(samples)
    data[:, 0, 0, 0] = np.arange(samples)  # a number that tells each sample
    return {"image": data, "label": np.arange(samples) % 3}


def ids(samples) -> set[int]:
    return {int(value) for value in samples.inputs["image"][:, 0, 0, 0]}


def test_evaluation_set_is_used_whole_and_nothing_is_held_back(tmp_path: Path) -> None:
    made = prepared(tmp_path, evaluation=labelled(10), calibration=labelled())
    assert (len(made.split.evaluation), len(made.split.calibration)) == (10, 40)
    assert made.split.source == "evaluation"
    assert made.notes == []


def test_a_fifth_of_the_labelled_training_set_is_held_back(tmp_path: Path) -> None:
    made = prepared(tmp_path, calibration=labelled(), training=labelled(50))
    assert made.split.source == "training"
    assert len(made.split.evaluation) == 10
    assert len(made.split.calibration) == 40
    assert ids(made.split.evaluation) | ids(made.split.training) == set(range(50))
    assert not ids(made.split.evaluation) & ids(made.split.training)
    assert "10 samples" in made.notes[0]


def test_labelled_calibration_serves_where_training_has_no_labels(tmp_path: Path) -> None:
    made = prepared(tmp_path, calibration=labelled(), training={"image": images(50)})
    assert made.split.source == "calibration"
    assert not ids(made.split.evaluation) & ids(made.split.calibration)
    np.testing.assert_array_equal(
        made.split.evaluation.labels, [value % 3 for value in sorted(ids(made.split.evaluation))]
    )


def test_one_file_in_two_roles_loses_the_same_samples_in_both(tmp_path: Path) -> None:
    made = prepared(tmp_path, calibration=labelled(), training=labelled())
    assert not ids(made.split.evaluation) & (ids(made.split.calibration) | ids(made.split.training))


def test_without_labels_fidelity_samples_are_held_back_and_no_metric_is_measured(tmp_path: Path) -> None:
    made = prepared(tmp_path, calibration={"image": images()})
    assert (len(made.split.evaluation), made.measured) == (8, None)
    assert any("no labels" in note for note in made.notes)


def test_without_data_there_is_nothing_to_measure_on(tmp_path: Path) -> None:
    assert prepared(tmp_path).split.evaluation is None


def test_evaluating_on_calibration_data_is_told(tmp_path: Path) -> None:
    made = prepared(tmp_path, calibration=labelled(), evaluation=labelled())
    assert any("too good" in note for note in made.notes)


@given(st.integers(8, 500), st.integers(0, 2**32))
def test_the_split_is_a_function_of_the_seed(samples: int, seed: int) -> None:
    kept, held = indices(samples, seed)
    assert len(held) == samples // 5
    assert sorted([*kept, *held]) == list(range(samples))
    np.testing.assert_array_equal(indices(samples, seed)[1], held)


def test_another_seed_holds_back_other_samples() -> None:
    assert set(indices(100, 0)[1]) != set(indices(100, 1)[1])
