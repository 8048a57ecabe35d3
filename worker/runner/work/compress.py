"""Runs a compression job."""

from app.recipes import Limits, RecipeError, parse_recipe
from worker.engine.errors import UserError
from worker.engine.manifest import Made
from worker.engine.pipeline import JobInput, ModelFile, run
from worker.runner.messages import ArtifactFile, Assignment, Result
from worker.runner.reporting import PipeReporter

_ROLES = ("calibration", "training", "evaluation")


def do(assignment: Assignment, reporter: PipeReporter) -> Result:
    """Artifacts, metrics and the gate.

    Raises:
        UserError: the model, the data, the recipe or the limits are at fault.
        RuntimeFailure: an exporter or runtime failed.
    """
    if assignment.model is None:
        raise ValueError("an assignment to compress names a model")
    try:
        recipe = parse_recipe(assignment.recipe)
    except RecipeError as error:
        raise UserError(error.faults[0].code, error.faults[0].detail) from error
    files = {role: getattr(assignment, role) for role in _ROLES}
    result = run(
        JobInput(
            model=assignment.model,
            recipe=recipe,
            targets=assignment.targets,
            output=assignment.output,
            models={name: ModelFile(file.path, file.format) for name, file in assignment.models.items()},
            model_format=assignment.model_format,
            filename=assignment.filename or assignment.model.name,
            task=assignment.task,
            data={role: path for role, path in files.items() if path is not None},
            evaluation_dataset_id=assignment.evaluation_dataset_id,
            limits=Limits.model_validate(assignment.limits),
            seed=assignment.seed,
            threads=assignment.threads,
            device=assignment.device,
            resume=assignment.checkpoint,
            provenance=assignment.provenance,
        ),
        reporter,
    )
    artifacts = tuple(_artifact(assignment, made) for made in result.artifacts)
    return Result(artifacts=artifacts, metrics=result.metrics, gate=result.gate)


def _artifact(assignment: Assignment, made: Made) -> ArtifactFile:
    return ArtifactFile(
        target=made.target,
        format=made.format,
        file=str(made.path.relative_to(assignment.output)),
        filename=made.filename,
        manifest=made.manifest,
    )
