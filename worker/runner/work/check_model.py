"""Checks an uploaded model."""

from worker.engine.checks import check_model
from worker.runner.messages import Assignment, Result
from worker.runner.reporting import PipeReporter


def do(assignment: Assignment, reporter: PipeReporter) -> Result:
    """The facts of the model.

    Raises:
        UserError: the file is refused.
    """
    if assignment.model is None:
        raise ValueError("an assignment to check a model names the file")
    reporter.progress("reading", 0.0)
    facts = check_model(assignment.model, assignment.model_format, assignment.filename or "")
    return Result(facts=facts.model_dump(mode="json"))
