"""What a check of a local file found."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from modelpress.views import Problem, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Operator:
    """An operator of the model, how often it is called, and whether the service reads it."""

    name: str
    count: int
    supported: bool = True


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What the service will say to a file, told from its structure alone.

    Attributes:
        file: its name.
        size_bytes: of the file, or of all files in a folder.
        format: ``pt2``, ``onnx`` or ``transformers``; None where it is none of them.
        producer: what wrote it, with its version, where the file says so.
        version: of the format: ``opset 20, IR 10`` or ``schema 8.14``.
        inputs: a size is a number, or a name or None where it is free.
        outputs: the same.
        dynamic_batch: whether every input has a free first dimension; None where the file does not tell.
        parameters: number of trainable scalars.
        weight_bytes: of all weights together.
        operators: with those in inner graphs, and functions written out; the most frequent first.
        architectures: of a transformers folder, by the names of their classes.
        problems: why it will be refused; the first is the one that the service names. Empty: nothing is known that
            speaks against it, and the service still runs it.
        notes: what is worth knowing besides.
    """

    file: str
    size_bytes: int
    format: str | None = None
    producer: str | None = None
    version: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    dynamic_batch: bool | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    operators: tuple[Operator, ...] = ()
    architectures: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Nothing that is known speaks against it."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """``accepted`` or ``refused``."""
        return "accepted" if self.accepted else "refused"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it, the verdict first."""
        return {"verdict": self.verdict, **_plain(self)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "raw"}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


class Refused(Exception):
    """Nothing more of the file can be read; the rest of the report is what was found before."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.problem = Problem(code=code, detail=detail)


@dataclass
class Findings:
    """A report in the making. `problems` come in the order in which the service finds them."""

    format: str | None = None
    producer: str | None = None
    version: str | None = None
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    dynamic_batch: bool | None = None
    parameters: int | None = None
    weight_bytes: int | None = None
    operators: tuple[Operator, ...] = ()
    architectures: tuple[str, ...] = ()
    problems: list[Problem] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def refuse(self, code: str, detail: str) -> None:
        """One more thing that speaks against the file."""
        self.problems.append(Problem(code=code, detail=detail))

    def batch(self) -> None:
        """Say whether the batch is free, and what happens where it is not."""
        shapes = [spec.shape for spec in self.inputs]
        if not shapes:
            return
        self.dynamic_batch = all(bool(shape) and not isinstance(shape[0], int) for shape in shapes if shape is not None)
        fixed = next((shape[0] for shape in shapes if shape and isinstance(shape[0], int)), None)
        if fixed is not None:
            self.notes.append(
                f"The batch is fixed at {fixed}: the service makes it dynamic where the graph allows that, and runs "
                "the model sample by sample where it does not. Exporting with a dynamic batch is safer."
            )

    def operators_refused(self) -> None:
        """Refuse the operators that the service does not read, all of them named."""
        unknown = sorted(one.name for one in self.operators if not one.supported)
        if unknown:
            self.refuse(
                "unsupported_operator",
                f"The model uses operators that are not supported: {', '.join(unknown)}. "
                "Rewrite those parts with ordinary layers and tensor operations, and export again.",
            )


def itemsize(dtype: str) -> int:
    """Bytes of one element: ``float32`` 4, ``bool`` 1, ``float8_e4m3fn`` 1."""
    digits = "".join(char if char.isdigit() else " " for char in dtype).split()
    return max(int(digits[0]) // 8, 1) if digits else 1


def is_float(dtype: str) -> bool:
    """Whether the type is one that weights are trained in."""
    return dtype.startswith(("float", "bfloat"))
