"""A recipe: what is asked, parsed and checked for order and targets before anything is queued."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializeAsAny, ValidationError

from app.recipes.errors import RecipeError, RecipeFault
from app.recipes.methods import METHODS, Step
from app.recipes.reach import reach_faults
from app.recipes.targets import TARGETS

MAX_STEPS = 32


class Recipe(BaseModel):
    """Steps in the order in which they run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[SerializeAsAny[Step], ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that steps read beside the job's own, each once."""
        return tuple(dict.fromkeys(model_id for step in self.steps for model_id in step.models))


def parse_recipe(raw: object, *, pointer: str = "/recipe") -> Recipe:
    """Parses ``{"steps": [{"method": ..., ...}]}`` with every default filled in.

    Raises:
        RecipeError: naming every fault: unknown method, unknown field, value out of range, wrong order.
    """
    faults: list[RecipeFault] = []
    if not isinstance(raw, dict) or not isinstance(raw.get("steps"), list) or not raw["steps"]:
        raise RecipeError(
            [RecipeFault("invalid_recipe", pointer, 'a recipe is {"steps": [{"method": "quantize.static"}, ...]}')]
        )
    faults += [
        RecipeFault("unknown_field", f"{pointer}/{_escaped(name)}", "a recipe has only the field steps")
        for name in raw
        if name != "steps"
    ]
    if len(raw["steps"]) > MAX_STEPS:
        raise RecipeError([RecipeFault("invalid_recipe", f"{pointer}/steps", f"at most {MAX_STEPS} steps")])
    steps: list[Step] = []
    for index, item in enumerate(raw["steps"]):
        step = _parse_step(item, f"{pointer}/steps/{index}", faults)
        if step is not None:
            steps.append(step)
    if not faults:
        faults += _order_faults(steps, pointer)
    if faults:
        raise RecipeError(faults)
    return Recipe(steps=tuple(steps))


def check_targets(recipe: Recipe, targets: Sequence[str]) -> list[RecipeFault]:
    """Faults of asking these targets for what the recipe makes; each says what is possible."""
    faults = []
    for index, target in enumerate(targets):
        if target not in TARGETS:
            faults.append(
                RecipeFault(
                    "target_unavailable",
                    f"/targets/{index}",
                    f"no target {target[:100]!r}; there are {_names(TARGETS)}",
                )
            )
            continue
        faults += [fault for step in recipe.steps for fault in reach_faults(step, target, f"/targets/{index}")]
    return faults


def _parse_step(item: object, pointer: str, faults: list[RecipeFault]) -> Step | None:
    name = item.get("method") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(name, str):
        faults.append(RecipeFault("invalid_recipe", pointer, 'a step is like {"method": "quantize.static"}'))
        return None
    cls = METHODS.get(name)
    if cls is None:
        detail = f"no method {name[:100]!r}; there are {_names(METHODS)}"
        faults.append(RecipeFault("unknown_method", f"{pointer}/method", detail))
        return None
    try:
        return cls.model_validate(item)
    except ValidationError as error:
        faults += [_fault(detail, pointer, cls) for detail in error.errors(include_url=False)]
        return None


def _fault(detail: Any, pointer: str, cls: type[Step]) -> RecipeFault:
    path = "/".join([pointer, *(_escaped(part) for part in detail["loc"])])
    if detail["type"] == "extra_forbidden":
        return RecipeFault("unknown_field", path, f"{cls.name()} takes {_names(cls.model_fields)}")
    return RecipeFault("invalid_parameter", path, f"{detail['msg']}, got {repr(detail['input'])[:100]}")


def _order_faults(steps: Sequence[Step], pointer: str) -> list[RecipeFault]:
    faults = []
    quantized = [index for index, step in enumerate(steps) if step.stage == "quantize"]
    for index in quantized[1:]:
        both_everywhere = "a layer can be quantized once; keep the layers of two steps apart with include/exclude"
        if steps[index].layers == steps[quantized[0]].layers or steps[index].layers.include == ("*",):
            faults.append(RecipeFault("invalid_order", f"{pointer}/steps/{index}", both_everywhere))
    first_of_all = "it changes weights, so it must be the first quantize step"
    faults += [
        RecipeFault("invalid_order", f"{pointer}/steps/{index}", first_of_all)
        for index in quantized[1:]
        if steps[index].changes_weights
    ]
    faults += [
        RecipeFault("invalid_order", f"{pointer}/steps/{index}", "nothing may change weights after quantization")
        for index, step in enumerate(steps)
        if step.stage != "quantize" and quantized and index > quantized[0]
    ]
    lost = (
        "the student starts from the uploaded model (or another one), so what steps before have made would be lost: "
        "put it first, or leave student out"
    )
    faults += [
        RecipeFault("invalid_order", f"{pointer}/steps/{index}", lost)
        for index, step in enumerate(steps)
        if index and step.starts_anew
    ]
    return faults


def _escaped(part: object) -> str:
    """A key as a token of an RFC 6901 pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


def _names(names: Any) -> str:
    return ", ".join(sorted(names))
