"""Objects that act: what the service answered, and the noun of the client that it came from."""

from typing import Any, Generic, TypeVar

N_co = TypeVar("N_co", covariant=True)


class Live(Generic[N_co]):
    """The acting side of a frozen view. A copy out of a pickle is the data alone."""

    _noun: N_co

    def _bind(self, noun: Any) -> None:
        """Tells it where it came from."""
        object.__setattr__(self, "_noun", noun)

    def __getattr__(self, name: str) -> Any:
        if name == "_noun":
            raise AttributeError(f"this {type(self).__name__} came from no client, so it cannot act: get it from one")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_noun"}
