"""Everything that can be said against a job before it is queued: all faults at once, each with code and pointer.

What is not known yet (an input is still being checked) is looked at again when it is, and then ends the job with the
same code.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.errors import FieldError, Invalid
from app.jobs import workers
from app.jobs.inputs import Known
from app.jobs.schemas import JobRequest
from app.recipes import Limits, ModelFacts, Recipe, RecipeError, RecipeFault, expand_preset, parse_recipe
from app.recipes.fit import LABEL, data_faults, labelled, layer_faults, model_faults, teaches
from app.tables import DATASETS, Dataset, Model, Worker
from app.web.fields import is_storable

#: Faults that one answer lists.
MAX_FAULTS = 100


def invalid(faults: Sequence[RecipeFault]) -> Invalid:
    """The 422 that tells `faults`; its code is that of the first."""
    told = faults[:MAX_FAULTS]
    detail = "; ".join(f"{fault.pointer or 'body'}: {fault.detail}" for fault in told[:3])
    if len(faults) > 3:
        detail += f"; and {len(faults) - 3} more"
    errors = [FieldError(pointer=fault.pointer, detail=fault.detail, code=fault.code) for fault in told]
    return Invalid(detail, code=faults[0].code, errors=errors)


def parse_request(raw: Mapping[str, Any]) -> tuple[JobRequest | None, list[RecipeFault]]:
    """The request with its defaults, or its faults: missing, unknown and ill-typed fields, values out of range."""
    faults = list(_unstorable(raw))
    if faults:
        return None, faults
    try:
        request = JobRequest.model_validate(raw)
    except ValidationError as error:
        return None, [_structural(fault) for fault in error.errors(include_url=False)]
    return request, list(_contradictions(request))


def resolve_recipe(raw: object) -> tuple[Recipe | None, list[RecipeFault]]:
    """The recipe with every parameter spelled out, or its faults."""
    if raw == "auto":
        detail = 'the planner is not there yet: send steps, or "preset:<name>" (GET /v1/presets)'
        return None, [RecipeFault("planner_unavailable", "/recipe", detail)]
    try:
        return parse_recipe(expand_preset(raw)), []
    except RecipeError as error:
        return None, list(error.faults)


def input_faults(request: JobRequest, known: Known) -> Iterator[RecipeFault]:
    """Models and datasets that are not there, or were rejected."""
    named: list[tuple[str, str, str, Model | Dataset | None]] = [("model", "/model_id", request.model_id, known.model)]
    for role in DATASETS:
        dataset_id = getattr(request, f"{role}_dataset_id")
        if dataset_id is not None:
            named.append(("dataset", f"/{role}_dataset_id", dataset_id, known.datasets.get(role)))
    for noun, pointer, row_id, row in named:
        yield from _unusable(noun, pointer, row_id, row)


def step_model_faults(recipe: Recipe, known: Known) -> Iterator[RecipeFault]:
    """Models that steps name and that are not there, or were rejected."""
    for index, step in enumerate(recipe.steps):
        for where, model_id in step.models_at.items():
            pointer = f"/recipe/steps/{index}/{where}"
            yield from _unusable("model", pointer, model_id, known.step_models.get(model_id))


def _unusable(noun: str, pointer: str, row_id: str, row: Model | Dataset | None) -> Iterator[RecipeFault]:
    if row is None:
        yield RecipeFault(f"{noun}_not_found", pointer, f"no {noun} {row_id!r} in this workspace; upload it first")
    elif row.state == "rejected":
        why = (row.error or {}).get("detail", "its check failed")
        yield RecipeFault(f"{noun}_rejected", pointer, f"{row_id} was rejected: {why}")


def need_faults(request: JobRequest, recipe: Recipe) -> Iterator[RecipeFault]:
    """Data that a step needs and that is not given."""
    for role in sorted({role for step in recipe.steps for role in step.needed}):
        if getattr(request, f"{role}_dataset_id") is None:
            needing = ", ".join(step.method for step in recipe.steps if role in step.needed)
            yield RecipeFault("data_required", f"/{role}_dataset_id", f"{needing} needs {role} data: upload a dataset")


def fact_faults(recipe: Recipe, limits: Limits, known: Known) -> Iterator[RecipeFault]:
    """What the facts of checked inputs speak against: layer names, columns, shapes, other models, missing labels."""
    model = known.model_facts
    if model is not None:
        yield from layer_faults(recipe, model, known.step_model_facts)
        yield from model_faults(recipe, model, known.step_model_facts)
        for role, dataset in known.datasets.items():
            facts = known.data_facts(role)
            if facts is not None and dataset.kind == "tensors":
                yield from data_faults(model, facts, f"/{role}_dataset_id", task=known.task)
            if dataset.kind == "text" and model.format != "transformers":
                detail = "text needs a model with its tokenizer: a folder of transformers; give tensors for this one"
                yield RecipeFault("dataset_kind_unsupported", f"/{role}_dataset_id", detail)
        yield from _label_faults(recipe, model, known)
    if limits.max_metric_drop is not None and _has_labels(known) is False:
        detail = (
            "max_metric_drop needs labels: give evaluation data with a column label (or labelled training or "
            "calibration data, a fifth of which is then held back)"
        )
        yield RecipeFault("labels_required", "/limits/max_metric_drop", detail)


def _label_faults(recipe: Recipe, model: ModelFacts, known: Known) -> Iterator[RecipeFault]:
    """Training data without the labels that steps learn from alone."""
    facts = known.data_facts("training")
    needing = [step.method for step in recipe.steps if step.needs_labels]
    if needing and facts is not None and not teaches(model, facts):
        detail = (
            f"{', '.join(needing)} learns from labels alone, and this dataset has none: add a column {LABEL!r}, or "
            "learn from the float model: method distill, or teacher: true where a method has it"
        )
        yield RecipeFault("labels_required", "/training_dataset_id", detail)


def offer_faults(request: JobRequest, live: Sequence[Worker]) -> Iterator[RecipeFault]:
    """Compute and targets that no live worker offers."""
    right = workers.of_kind(request.compute, live)
    if not right:
        kind = "worker" if request.compute == "any" else f"{request.compute} worker"
        yield RecipeFault("target_unavailable", "/compute", f"no {kind} is running: start one")
        return
    offered = {name for worker in right for name in worker.targets}
    missing = [index for index, target in enumerate(request.targets) if target not in offered]
    for index in missing:
        detail = f"no live worker offers {request.targets[index][:100]!r}; they offer {', '.join(sorted(offered))}"
        yield RecipeFault("target_unavailable", f"/targets/{index}", detail)
    if not missing and not workers.able(request.targets, request.compute, live):
        yield RecipeFault("target_unavailable", "/targets", "no single worker offers all of these: post a job for each")


def _has_labels(known: Known) -> bool | None:
    """Whether the job can measure quality: on its evaluation data, else on labelled training or calibration data."""
    roles = ("evaluation",) if "evaluation" in known.datasets else ("training", "calibration")
    given = [role for role in roles if role in known.datasets]
    return labelled([known.data_facts(role) for role in given])


def _contradictions(request: JobRequest) -> Iterator[RecipeFault]:
    if request.budget is not None and request.recipe != "auto":
        yield RecipeFault("invalid_request", "/budget", 'a budget goes with "recipe": "auto" alone')
    for index, target in enumerate(request.targets):
        if target in request.targets[:index]:
            yield RecipeFault("invalid_request", f"/targets/{index}", f"{target[:100]!r} is named twice")


def _structural(fault: Any) -> RecipeFault:
    pointer = "".join("/" + _escaped(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return RecipeFault("unknown_field", pointer, f"no such field; a job has {', '.join(JobRequest.model_fields)}")
    return RecipeFault("invalid_request", pointer, str(fault["msg"]))


def _unstorable(raw: object) -> Iterator[RecipeFault]:
    """Text and numbers that JSON lets through and Postgres does not; without recursion, however deep it nests."""
    rest: list[tuple[str, object]] = [("", raw)]
    while rest:
        pointer, value = rest.pop()
        if isinstance(value, str) and not is_storable(value):
            yield RecipeFault("invalid_request", pointer, "text must be Unicode without NUL characters")
        elif isinstance(value, float) and not math.isfinite(value):
            yield RecipeFault("invalid_request", pointer, "a number must be finite")
        elif isinstance(value, dict):
            for key, item in value.items():
                if is_storable(key):
                    rest.append((f"{pointer}/{_escaped(key)}", item))
                else:
                    yield RecipeFault("invalid_request", pointer, "a field's name must be Unicode without NUL")
        elif isinstance(value, list):
            rest += [(f"{pointer}/{index}", item) for index, item in enumerate(value)]


def _escaped(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")
