"""``/v1/methods``, ``/v1/targets``, ``/v1/presets``."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.accounts.caller import Reader
from app.accounts.routes import WorkspaceRoute
from app.jobs import workers
from app.recipes import METHODS, PRESETS, TARGETS, Grid
from app.recipes.reach import possible
from app.web.problems import responses
from app.web.services import ServicesDep, SessionDep

router = APIRouter(prefix="/v1", tags=["catalog"], route_class=WorkspaceRoute)


class MethodView(BaseModel):
    """A method that a step of a recipe can name."""

    name: str
    summary: str
    stage: str = Field(description="Recipes run search, factorize, prune and train in any order, then quantize.")
    needs: list[str] = Field(
        description="Data without which it cannot run; some parameters need more, which a job's check says."
    )
    targets: list[str] = Field(description="Targets that can run what it makes.")
    possible: dict[str, dict[str, list[int | str]]] = Field(
        description="For each of these targets, the values of the parameters that depend on it."
    )
    parameters: dict[str, Any] = Field(description="JSON Schema of a step.")


class TargetView(Grid):
    """A runtime that an artifact can be for, with the numbers it can hold."""

    offered: bool = Field(description="Whether a live worker has this runtime.")
    compute: list[str] = Field(description="Kinds of live workers that have it: cpu, gpu.")


class PresetView(BaseModel):
    """A recipe by name: `"recipe": "preset:<name>"`."""

    name: str
    summary: str
    recipe: dict[str, Any]


class Methods(BaseModel):
    """Every method."""

    items: list[MethodView]


class Targets(BaseModel):
    """Every target."""

    items: list[TargetView]


class Presets(BaseModel):
    """Every preset."""

    items: list[PresetView]


@router.get("/methods", summary="List methods", responses=responses())
async def list_methods(_: Reader) -> Methods:
    """The methods, each with the JSON Schema of its parameters, the data it needs, and where it can go."""
    return Methods(
        items=[
            MethodView(
                name=name,
                summary=step.summary,
                stage=step.stage,
                needs=list(step.needs),
                targets=list(possible(step)),
                possible=possible(step),
                parameters=step.model_json_schema(),
            )
            for name, step in sorted(METHODS.items())
        ]
    )


@router.get("/targets", summary="List targets", responses=responses())
async def list_targets(_: Reader, session: SessionDep, services: ServicesDep) -> Targets:
    """The targets, and whether a live worker offers each."""
    offered: dict[str, set[str]] = {}
    for worker in await workers.live(session, services.settings.worker_ttl_s):
        for name in worker.targets:
            offered.setdefault(name, set()).add(worker.queue)
    return Targets(
        items=[
            TargetView(**grid.model_dump(), offered=name in offered, compute=sorted(offered.get(name, ())))
            for name, grid in sorted(TARGETS.items())
        ]
    )


@router.get("/presets", summary="List presets", responses=responses())
async def list_presets(_: Reader) -> Presets:
    """The presets, each with the recipe that it stands for."""
    return Presets(
        items=[
            PresetView(name=preset.name, summary=preset.summary, recipe=preset.recipe)
            for _name, preset in sorted(PRESETS.items())
        ]
    )
