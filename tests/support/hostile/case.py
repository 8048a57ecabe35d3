"""What a hostile file is: a name, how it is written, and what may be said to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.engine.data import codes as data_codes
from worker.engine.formats import codes as model_codes

#: What is said to a file that is read: it is odd, but it is a model or a dataset.
ACCEPTED = "accepted"
#: Every code that the check of an upload may end with; all others are faults of the service.
KNOWN = model_codes.ALL | data_codes.ALL | {"model_does_not_run"}
#: What is said to a file that is larger than a job's memory, and to nothing smaller.
FULL = "out_of_memory"
#: Any of them, or accepted: for damage that may hit what nobody reads.
ANY = (ACCEPTED, *sorted(KNOWN))


@dataclass(frozen=True)
class Holes:
    """A file that claims far more than it stores: `parts` at their offsets, nothing between them, `size` in all."""

    size: int
    parts: tuple[tuple[int, bytes], ...]


#: From the path of the canary, which code of the file would create, to the file.
Make = Callable[[Path], bytes | Holes]


@dataclass(frozen=True)
class Case:
    """One hostile file.

    Attributes:
        name: unique in the corpus.
        group: what it tries, a heading of the corpus.
        kind: what it is uploaded as: ``model``, ``tensors`` or ``text``; ``tokenizer`` is one that texts go through.
        make: gives its bytes.
        codes: what may be said to it, `ACCEPTED` among them where it is a model or dataset all the same.
    """

    name: str
    group: str
    kind: str
    make: Make
    codes: frozenset[str]

    def write(self, path: Path, canary: Path) -> None:
        """Write the file; its code, if that ran, would create `canary`."""
        made = self.make(canary)
        with path.open("wb") as file:
            if isinstance(made, Holes):
                file.truncate(made.size)
                for offset, data in made.parts:
                    file.seek(offset)
                    file.write(data)
            else:
                file.write(made)


class Group:
    """The cases of one heading, in the order in which they are added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._cases: dict[str, Case] = {}

    def __iter__(self) -> Iterator[Case]:
        return iter(self._cases.values())

    def add(self, name: str, kind: str, make: Make, *codes: str) -> None:
        """Add a case; `codes` are those that may be said to it."""
        assert name not in self._cases and codes and set(codes) <= {ACCEPTED, FULL, *KNOWN}, name
        self._cases[name] = Case(f"{self.name}/{name}", self.name, kind, make, frozenset(codes))

    def model(self, name: str, make: Make, *codes: str) -> None:
        """Add a file that is uploaded as a model."""
        self.add(f"{name}-model", "model", make, *codes)

    def tensors(self, name: str, make: Make, *codes: str) -> None:
        """Add a file that is uploaded as a dataset of tensors."""
        self.add(f"{name}-tensors", "tensors", make, *codes)

    def text(self, name: str, make: Make, *codes: str) -> None:
        """Add a file that is uploaded as a dataset of text."""
        self.add(f"{name}-text", "text", make, *codes)

    def tokenizer(self, name: str, make: Make, *codes: str) -> None:
        """Add the tokenizer of a model, which is looked at when a job reads text."""
        self.add(f"{name}-tokenizer", "tokenizer", make, *codes)


def always(data: bytes) -> Make:
    """These bytes, whatever the canary."""
    return lambda canary: data
