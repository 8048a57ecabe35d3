"""What every runtime's session can do."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Session(Protocol):
    """A loaded artifact."""

    def run(self, inputs: Mapping[str, Array]) -> list[NDArray[Any]]:
        """The outputs in the network's order, for inputs by the network's names."""


def missing(package: str, extra: str) -> str | None:
    """None where `package` is installed, else what to do; imports nothing."""
    if find_spec(package) is not None:
        return None
    return f"{package} is not installed on this worker; install modelpress-server[{extra}]"
