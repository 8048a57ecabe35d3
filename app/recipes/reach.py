"""Which method can go to which target, and with which parameters: read off the steps' `asks` and the targets' grids.

``GET /v1/methods`` shows this table, a request is checked against it, and the tests run every pair of it.
"""

from collections.abc import Iterator

from app.recipes.errors import RecipeFault
from app.recipes.methods import Step
from app.recipes.targets import TARGETS, Grid

#: Parameter -> the values of it that are possible.
Values = dict[str, list[int | str]]


def possible(method: type[Step]) -> dict[str, Values]:
    """Target -> the values that each parameter which depends on the target may have; no row: it cannot go there."""
    rows = {name: _values(method, grid) for name, grid in TARGETS.items()}
    return {name: values for name, values in rows.items() if all(values.values())}


def reach_faults(step: Step, target: str, pointer: str) -> Iterator[RecipeFault]:
    """Why `step` cannot go to `target`, each with what is possible instead.

    Args:
        target: a name in `TARGETS`.
        pointer: to the target in the request.
    """
    rows = possible(type(step))
    if target not in rows:
        detail = f"{step.method} cannot go to {target}; it can go to {_listed(sorted(rows))}"
        yield RecipeFault("target_unsupported", pointer, detail)
        return
    for name, values in rows[target].items():
        for value in impossible(getattr(step, name), values):
            others = sorted(other for other, row in rows.items() if value in row[name])
            detail = (
                f"{step.method} with {name} {value} cannot go to {target}, which holds {name} {_listed(values)}; "
                f"{name} {value} can go to {_listed(others)}"
            )
            yield RecipeFault("target_unsupported", pointer, detail)
    if getattr(step, "symmetric_activations", None) is False and not TARGETS[target].asymmetric_activations:
        detail = f"{target} holds symmetric activations alone: leave symmetric_activations out, or set it to true"
        yield RecipeFault("target_unsupported", pointer, detail)


def impossible(given: object, values: list[int | str]) -> list[object]:
    """What of a parameter, or of each entry of a list, is not among `values`."""
    return [value for value in (given if isinstance(given, tuple) else (given,)) if value not in values]


def _values(method: type[Step], grid: Grid) -> Values:
    """What both the parameter's type and the grid admit, in the grid's order."""
    choices = method.model_json_schema()["properties"]
    values: Values = {}
    for name, attribute in method.asks.items():
        schema = choices[name]
        one = schema.get("items", schema)  # of a list, each entry must be possible
        admitted = one.get("enum", [one.get("const")])
        values[name] = [value for value in getattr(grid, attribute) if value in admitted]
    return values


def _listed(values: list[int | str] | list[str]) -> str:
    return ", ".join(map(str, values)) or "no target"
