"""What a shell offers where an id is expected: those of the group's noun, newest first."""

import typer

from modelpress import Client, ModelpressError, Retries

SHOWN = 50


def ids(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids with their names; none where the noun has no list or the service does not answer: a shell shows no errors."""
    group = context.parent.info_name if context.parent is not None else None
    try:
        with Client(retries=Retries(attempts=1)) as client:
            noun = getattr(client, group or "", None)
            if noun is None or not hasattr(noun, "page"):
                return []
            items = noun.page(limit=SHOWN).items
    except ModelpressError:
        return []
    return [(item.id, getattr(item, "name", None) or "") for item in items if item.id.startswith(incomplete)]
