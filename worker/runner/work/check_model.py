"""Checks an uploaded model."""

from worker.engine.checks import check_model
from worker.engine.errors import InvalidModel
from worker.engine.formats import codes
from worker.runner.messages import MAX_LINE, Assignment, Result
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
    result = Result(facts=facts.model_dump(mode="json"))
    size = len(result.model_dump_json().encode())
    if size >= MAX_LINE:  # names are the file's, and as long as it likes
        raise InvalidModel(
            codes.ARCHIVE_TOO_LARGE,
            f"What there is to say of the model's inputs, outputs and layers takes {size} bytes; {MAX_LINE} at most "
            "are kept. Give them shorter names, and the model fewer of them.",
        )
    return result
