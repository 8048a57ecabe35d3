"""SQL about what a job reads: which of its inputs are ready, rejected or gone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.outcomes import InputFile
from app.recipes import DatasetFacts, ModelFacts
from app.tables import DATASETS, Dataset, Job, Model
from app.tables.base import Json
from app.uploads.repository import uses
from app.web.fields import is_storable

Row = TypeVar("Row")


@dataclass(frozen=True)
class Known:
    """The inputs that a request names, as far as they are there."""

    model: Model | None
    datasets: Mapping[str, Dataset]
    step_models: Mapping[str, Model]

    @property
    def model_facts(self) -> ModelFacts | None:
        """What the model is; None while that is being checked."""
        return _facts_of(self.model)

    @property
    def step_model_facts(self) -> dict[str, ModelFacts]:
        """What the models are that steps name; without those that are being checked."""
        found = {model_id: _facts_of(model) for model_id, model in self.step_models.items()}
        return {model_id: facts for model_id, facts in found.items() if facts is not None}

    @property
    def unchecked(self) -> bool:
        """Whether something that is named here is still being checked."""
        rows: list[Model | Dataset] = [*self.datasets.values(), *self.step_models.values()]
        return any(row.state == "checking" for row in rows if row is not None)

    @property
    def task(self) -> str | None:
        """What the model is for, where its uploader said."""
        return None if self.model is None else self.model.task

    def data_facts(self, role: str) -> DatasetFacts | None:
        """What the dataset of that role is; None while that is being checked, or where there is none."""
        dataset = self.datasets.get(role)
        if dataset is None or dataset.state != "ready" or dataset.facts is None:
            return None
        return DatasetFacts.model_validate(dataset.facts)


def inputs_ready() -> ColumnElement[bool]:
    """The job's inputs have been checked and found good; a check itself waits for nothing."""
    parts: list[ColumnElement[bool]] = [
        exists(select(Model.id).where(Model.id == Job.model_id, Model.state == "ready").correlate(Job))
    ]
    for column in DATASETS.values():
        ready = exists(select(Dataset.id).where(Dataset.id == column, Dataset.state == "ready").correlate(Job))
        parts.append(or_(column.is_(None), ready))
    parts.append(~_step_model_without(Model.state == "ready"))
    return or_(Job.kind != "compress", and_(*parts))


def inputs_lost() -> ColumnElement[bool]:
    """An input was rejected, or is gone: the job can never start."""
    parts: list[ColumnElement[bool]] = [
        ~exists(select(Model.id).where(Model.id == Job.model_id, Model.state != "rejected").correlate(Job))
    ]
    for column in DATASETS.values():
        usable = exists(select(Dataset.id).where(Dataset.id == column, Dataset.state != "rejected").correlate(Job))
        parts.append(and_(column.is_not(None), ~usable))
    parts.append(_step_model_without(Model.state != "rejected"))
    return and_(Job.kind == "compress", or_(*parts))


def waiting_on(input_id: str) -> Select[Job]:
    """Queued compression jobs that read this model or dataset, oldest first."""
    return select(Job).where(Job.kind == "compress", Job.state == "queued", uses(input_id)).order_by(Job.id)


def dataset_of_check(job: Job) -> str:
    """The dataset that a ``check_dataset`` job reads; it stands in the first of the dataset columns that is set."""
    return next(value for _, value in _dataset_ids(job))


async def known_inputs(
    session: AsyncSession,
    workspace_id: str,
    ids: Mapping[str, str | None],
    step_models: Sequence[str] = (),
    *,
    settled: bool = False,
) -> Known:
    """The rows that ``{"model": id, "calibration": id, ...}`` and steps name in this workspace, kept from deletion.

    Args:
        settled: a check that ends waits for this transaction; one that is ending is waited for.
    """
    wanted = [model_id for model_id in (ids.get("model"), *step_models) if model_id is not None]
    storable = [model_id for model_id in wanted if is_storable(model_id)]
    found = select(Model).where(Model.id.in_(storable), Model.workspace_id == workspace_id).order_by(Model.id)
    models = {model.id: model for model in (await session.scalars(_kept(found, settled))).all()} if storable else {}
    datasets: dict[str, Dataset] = {}
    for role in DATASETS:
        dataset_id = ids.get(role)
        if dataset_id is None or not is_storable(dataset_id):
            continue
        statement = select(Dataset).where(Dataset.id == dataset_id, Dataset.workspace_id == workspace_id)
        dataset = await session.scalar(_kept(statement, settled))
        if dataset is not None:
            datasets[role] = dataset
    named = {model_id: models[model_id] for model_id in step_models if model_id in models}
    return Known(models.get(ids.get("model") or ""), datasets, named)


async def first_lost(session: AsyncSession, job: Job) -> tuple[str, Json | None] | None:
    """The first input of `job` that was rejected or is gone: its id, and why it was rejected."""
    if job.model_id is None:
        return None
    found = []
    for model_id in (job.model_id, *job.step_model_ids):
        lost = await session.execute(select(Model.state, Model.error).where(Model.id == model_id))
        found.append((model_id, lost.one_or_none()))
    for _, dataset_id in _dataset_ids(job):
        lost = await session.execute(select(Dataset.state, Dataset.error).where(Dataset.id == dataset_id))
        found.append((dataset_id, lost.one_or_none()))
    for input_id, row in found:
        if row is None:
            return input_id, None
        if row.state == "rejected":
            return input_id, row.error
    return None


async def files_of(session: AsyncSession, job: Job) -> dict[str, InputFile]:
    """What the worker has to fetch, by role.

    A dataset that is being checked has the role ``dataset``; a model that a step names has its id for one.
    """
    files: dict[str, InputFile] = {}
    for role, model_id in [("model", job.model_id), *((name, name) for name in job.step_model_ids)]:
        model = await session.get(Model, model_id) if model_id else None
        if model is not None:
            files[role] = InputFile(
                model.id, model.sha256, model.size_bytes, model.filename, model.format, model.task, facts=model.facts
            )
    for role, dataset_id in _dataset_ids(job):
        dataset = await session.get(Dataset, dataset_id)
        if dataset is not None:
            files["dataset" if job.kind == "check_dataset" else role] = InputFile(
                dataset.id, dataset.sha256, dataset.size_bytes, dataset.filename, kind=dataset.kind, facts=dataset.facts
            )
    return files


def ids_of(job: Job) -> dict[str, str | None]:
    """``{"model": id, "calibration": id, ...}`` as `known_inputs` takes them."""
    return {"model": job.model_id, **dict(_dataset_ids(job))}


def _facts_of(model: Model | None) -> ModelFacts | None:
    if model is None or model.state != "ready" or model.facts is None:
        return None
    return ModelFacts.model_validate(model.facts)


def _step_model_without(state: ColumnElement[bool]) -> ColumnElement[bool]:
    """A step names a model that is not there in this `state`."""
    named = func.jsonb_array_elements_text(Job.step_model_ids).table_valued("value")
    there = exists(select(Model.id).where(Model.id == named.c.value, state).correlate(named))
    return exists(select(1).select_from(named).where(~there).correlate(Job))


def _kept(statement: Select[Row], settled: bool) -> Select[Row]:
    return statement.with_for_update(read=True, key_share=not settled)


def _dataset_ids(job: Job) -> Iterator[tuple[str, str]]:
    for role, column in DATASETS.items():
        value = getattr(job, column.key)
        if value is not None:
            yield role, value
