"""Checks an uploaded dataset."""

from worker.engine.data.check import check_dataset
from worker.runner.messages import Assignment, Result
from worker.runner.reporting import PipeReporter


def do(assignment: Assignment, reporter: PipeReporter) -> Result:
    """The facts of the dataset.

    Raises:
        UserError: the file is refused.
    """
    if assignment.dataset is None:
        raise ValueError("an assignment to check a dataset names the file")
    reporter.progress("reading", 0.0)
    facts = check_dataset(
        assignment.dataset, assignment.dataset_kind or "tensors", assignment.filename or "", assignment.output
    )
    return Result(facts=facts.model_dump(mode="json"))
