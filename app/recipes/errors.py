"""What is wrong with a recipe, in a form that the API and the engine both can show."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RecipeFault:
    """One fault: a stable code, an RFC 6901 pointer into the job request, a sentence that says what would work."""

    code: str
    pointer: str
    detail: str


class RecipeError(ValueError):
    """A recipe that cannot be run; carries every fault that was found."""

    def __init__(self, faults: Sequence[RecipeFault]) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        self.faults = tuple(faults)
