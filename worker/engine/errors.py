"""Errors of the engine.

EngineError
├── UserError            the input is at fault; running it again gives the same answer
│   ├── UnsafeFile       a file that could execute code when loaded
│   ├── InvalidModel     a model that cannot be read
│   ├── InvalidDataset   a dataset that cannot be read, or does not fit the model
│   └── Unsupported      readable, but beyond what a method or a target can do
└── RuntimeFailure       a runtime or exporter failed on a file that we consider valid

Each carries a stable ``code`` (snake_case) and a ``detail`` that says what is wrong and what would work.
"""


class EngineError(Exception):
    """Root of the engine's errors.

    Args:
        code: stable snake_case identifier, documented in docs/errors.md.
        detail: what is wrong and what would work, for the person who uploaded the file.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class UserError(EngineError):
    """The input is at fault; a retry would give the same answer."""


class UnsafeFile(UserError):
    """The file could execute code when loaded. Code is always ``unsafe_format``."""

    def __init__(self, detail: str) -> None:
        super().__init__("unsafe_format", detail)


class InvalidModel(UserError):
    """The model file cannot be read."""


class InvalidDataset(UserError):
    """The dataset cannot be read, or does not fit the model."""


class Unsupported(UserError):
    """Readable, but beyond what a method or target can do."""


class RuntimeFailure(EngineError):
    """An exporter or runtime failed on a file that we consider valid."""
