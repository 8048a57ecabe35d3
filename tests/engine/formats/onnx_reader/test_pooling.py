"""Windows at the edges: padding that differs from side to side, strides that do not fit, dilations."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.support.onnx_models import agree, model, read
from worker.engine.errors import Unsupported

FLOAT = np.float32


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(FLOAT)


def pool(op, length, **attributes):
    return model(
        [helper.make_node(op, ["x"], ["y"], **attributes)], {"x": (FLOAT, ["n", 2, length])}, {"y": (FLOAT, 3)}
    )


@given(
    op=st.sampled_from(("MaxPool", "AveragePool", "LpPool")),
    length=st.integers(6, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    include=st.integers(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_windows_begin_before_the_padding_behind_the_data(
    tmp_path_factory, op, length, kernel, stride, dilation, pads, include
):
    assume(max(pads) < kernel)
    more = {"count_include_pad": include} if op == "AveragePool" else {}
    attributes = {"kernel_shape": [kernel], "strides": [stride], "dilations": [dilation], "pads": list(pads), **more}
    content = pool(op, length, **attributes, ceil_mode=1)
    agree(content, tmp_path_factory.mktemp("pool"), random(3, 2, length), atol=1e-4)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_one_window_fewer_than_the_formula_says(tmp_path, op):
    content = pool(op, 5, kernel_shape=[2], strides=[3], pads=[0, 1], ceil_mode=1)
    agree(content, tmp_path, random(3, 2, 5))


def test_forms_where_runtimes_disagree_are_refused(tmp_path):
    content = pool("MaxPool", 9, kernel_shape=[2], strides=[2], dilations=[2], auto_pad="SAME_UPPER")
    with pytest.raises(Unsupported, match="runtimes disagree"):
        read(content, tmp_path)
