"""Tests that need an NVIDIA GPU: ``make test-gpu``. Elsewhere each is skipped, with the reason."""

import pytest
import torch

HERE = __file__.rpartition("/")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is in this folder where CUDA is not there."""
    if torch.cuda.is_available():
        return
    reason = "no CUDA GPU, or a build of torch without CUDA"
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.skip(reason=reason))
