"""Every method, with its parameters: what ``GET /v1/methods`` answers."""

from app.recipes import METHODS, Step
from app.recipes.reach import possible
from tools.reference.markdown import code, table
from tools.reference.markdown import page as _page
from tools.reference.types import default, described

ABOUT = """
The methods of a recipe's steps. How each works, when to use it and what was measured is on its own page. Every step
also takes `layers`, which narrows it by globs on the names of layers: `{"include": ["*"], "exclude": []}`.
"""


def page() -> str:
    """docs/reference/methods.md."""
    return _page("Methods", ABOUT, *(_method(name, step) for name, step in sorted(METHODS.items())))


def _method(name: str, step: type[Step]) -> str:
    facts = [
        f"Stage: {step.stage}.",
        f"Needs: {', '.join(step.needs) or 'no data'}.",
        f"Targets: {code(*possible(step))}.",
    ]
    parameters = {key: field for key, field in step.model_fields.items() if key not in ("method", "layers")}
    rows = [[code(key), described(field), default(field), _limited(step, key)] for key, field in parameters.items()]
    return "\n\n".join(
        [
            f"## {name}",
            f"{step.summary.rstrip('.')}. [Page of the method](../methods/{name}.md)",
            " ".join(facts),
            table(["parameter", "type", "default", "depends on the target"], rows) if rows else "No parameters.",
        ]
    )


def _limited(step: type[Step], parameter: str) -> str:
    if parameter not in step.asks:
        return ""
    values = {target: found[parameter] for target, found in possible(step).items() if parameter in found}
    return "; ".join(f"{target}: {', '.join(map(str, found))}" for target, found in values.items())
