"""What PyTorch and the libraries around it raise on graphs and settings of strangers that make no sense."""

from typing import Final

FAILURES: Final = (
    RuntimeError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AssertionError,
    AttributeError,
)
