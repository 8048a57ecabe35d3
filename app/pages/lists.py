"""Filters of lists, as forms send them: what is left empty asks for nothing."""

from pydantic import BeforeValidator

#: For a parameter whose empty value means any: ``Annotated[State | None, EMPTY_IS_ANY, ...]``.
EMPTY_IS_ANY = BeforeValidator(lambda value: value or None)
