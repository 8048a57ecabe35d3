"""The operator cases that ship with the onnx package: every answer is right, or the model is refused."""

import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from worker.engine import formats
from worker.engine.errors import Unsupported
from worker.engine.formats.onnx_reader.operators import OPERATORS

#: Thousands of cases are made on import: once, in one process.
pytestmark = pytest.mark.xdist_group("conformance")

#: Tensors without elements: torch has no meta shape or no identity for them.
EMPTY = ("empty_set", "allowzero_reordered", "split_zero_size")


def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.loader import load_model_tests

        found = load_model_tests(kind="node")
    for case in found:
        if case.model is None or any(n.op_type not in OPERATORS or n.domain for n in case.model.graph.node):
            continue
        arrays = [array for part in case.data_sets[0] for array in part]
        usual = all(isinstance(a, np.ndarray) and a.dtype.kind in "fiub" for a in arrays)
        composed = "_expanded" in case.name and "attention" in case.name  # slow, and of operators tested alone
        if usual and not composed and not any(word in case.name for word in EMPTY):
            yield case


def with_constants(model, arrays):
    """The model with every input but the first as an initializer: what weights and settings are in real files."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value, array in zip(model.graph.input[1:], arrays[1:], strict=True):
        fixed.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del fixed.graph.input[1:]
    return fixed


@pytest.fixture(scope="module")
def all_cases():
    return list(cases())


@pytest.mark.filterwarnings("ignore")
def test_operators(all_cases, tmp_path):
    outcomes, wrong = Counter(), []
    for case in all_cases:
        inputs, expected = case.data_sets[0]
        variants = [(case.model, inputs)]
        if len(inputs) > 1:
            variants.append((with_constants(case.model, inputs), inputs[:1]))
        for model, given in variants:
            path = tmp_path / "case.onnx"
            path.write_bytes(model.SerializeToString())
            try:
                network = formats.read(path)
            except Unsupported:
                outcomes["refused"] += 1
                continue
            with torch.no_grad():
                results = network.module(*(torch.from_numpy(np.array(array)) for array in given))
            loose = any(array.dtype == np.float16 for array in expected)
            same = len(results) == len(expected) and all(
                got.shape == want.shape
                and got.numpy().dtype == want.dtype
                and np.allclose(
                    got.numpy(), want, rtol=1e-2 if loose else 1e-3, atol=1e-3 if loose else 1e-5, equal_nan=True
                )
                for got, want in zip(results, expected, strict=True)
            )
            outcomes["right" if same else "wrong"] += 1
            if not same:
                wrong.append(case.name)
    assert not wrong
    assert outcomes["right"] > 800, outcomes


def test_the_cases_cover_the_table(all_cases):
    """Operators without a case of their own are few, and known."""
    covered = {node.op_type for case in all_cases for node in case.model.graph.node}
    assert set(OPERATORS) - covered <= {"Identity", "Dropout", "Resize", "Swish", "CastLike", "CumSum"}, (
        set(OPERATORS) - covered
    )
