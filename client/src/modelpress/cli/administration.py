"""The groups `keys`, `workspaces`, `webhooks`, `audit` and `usage`: for those who run a service or a workspace."""

from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from modelpress import Client, Quota
from modelpress.cli import text
from modelpress.cli.listing import Id, Json, Limit, Noun, show_done, show_fields, show_table
from modelpress.cli.output import show_json

keys = typer.Typer(no_args_is_help=True, help="API keys.")
workspaces = typer.Typer(no_args_is_help=True, help="Workspaces, for operators.")
webhooks = typer.Typer(no_args_is_help=True, help="Addresses that are told of jobs' ends, for admins.")
audit = typer.Typer(no_args_is_help=True, help="Who changed what, for admins.")
usage = typer.Typer(no_args_is_help=True, help="What a workspace uses, and how much it may.")

Count = Annotated[str | None, typer.Option(metavar="N", help="A number; 0: no limit; default: the deployment's.")]
EVENTS = ("job.succeeded", "job.failed", "job.canceled")
Events = Annotated[list[str] | None, typer.Option("--event", help=f"{', '.join(EVENTS)}; can be repeated.")]
DEFAULT = "default"

_keys = Noun(
    keys,
    {
        "id": lambda item: item.id,
        "name": lambda item: item.name,
        "role": lambda item: item.role,
        "expires": lambda item: text.when(item.expires_at),
        "created": lambda item: text.when(item.created_at),
    },
)
_keys.listed(lambda client: client.keys)
_keys.deleted(lambda client: client.keys, "revoke")

_workspaces = Noun(workspaces, {"id": lambda item: item.id, "name": lambda item: item.name})
_workspaces.listed(lambda client: client.workspaces)

_webhooks = Noun(
    webhooks,
    {
        "id": lambda item: item.id,
        "name": lambda item: item.name,
        "url": lambda item: item.url,
        "events": lambda item: ", ".join(item.events),
        "enabled": lambda item: item.disabled_reason or ("yes" if item.enabled else "no"),
    },
)
_webhooks.listed(lambda client: client.webhooks)
_webhooks.shown(lambda client: client.webhooks)
_webhooks.deleted(lambda client: client.webhooks)

DELIVERIES = {
    "id": lambda item: item.id,
    "event": lambda item: item.event,
    "state": lambda item: item.state,
    "attempts": lambda item: item.attempts,
    "answer": lambda item: item.response_status,
    "error": lambda item: item.error.code if item.error else None,
    "created": lambda item: text.when(item.created_at),
}
AUDITED = {
    "when": lambda item: text.when(item.created_at),
    "actor": lambda item: item.actor,
    "action": lambda item: item.action,
    "object": lambda item: item.object_id,
    "outcome": lambda item: item.outcome,
    "address": lambda item: item.address,
}


class Role(StrEnum):
    """What a key may do."""

    READER = "reader"
    MEMBER = "member"
    ADMIN = "admin"
    OPERATOR = "operator"


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument()],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.MEMBER,
    workspace: Annotated[str | None, typer.Option(help="Id of another workspace, for operators.")] = None,
    expires: Annotated[datetime | None, typer.Option(help="When it ends, in local time.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a key; it is printed this once."""
    ends = None if expires is None else expires.astimezone()
    with Client() as client:
        show_fields(client.keys.create(name, role, workspace_id=workspace, expires_at=ends).raw, as_json=as_json)


@keys.command("rotate")
def rotate_key(
    id: Id,
    overlap_s: Annotated[int | None, typer.Option(min=0, help="How long the old one still works; a day.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a new key in place of one; it is printed this once."""
    with Client() as client:
        show_fields(client.keys.rotate(id, overlap_s=overlap_s).raw, as_json=as_json)


@workspaces.command("create")
def create_workspace(name: Annotated[str, typer.Argument()], as_json: Json = False) -> None:
    """Makes a workspace."""
    with Client() as client:
        show_fields(client.workspaces.create(name).raw, as_json=as_json)


@workspaces.command("update")
def update_workspace(
    id: Id, stored_bytes: Count = None, jobs: Count = None, uploads: Count = None, as_json: Json = False
) -> None:
    """Changes the quotas of a workspace; what is not named stays."""
    asked = {"stored_bytes": stored_bytes, "jobs": jobs, "uploads": uploads}
    quotas = Quota(**{name: _count(name, value) for name, value in asked.items() if value is not None})  # type: ignore[typeddict-item]
    with Client() as client:
        show_fields(client.workspaces.update(id, quotas).raw, as_json=as_json)


def _count(name: str, value: str) -> int | None:
    if value == DEFAULT:
        return None
    if not (value.isascii() and value.isdigit()):
        option = name.replace("_", "-")
        raise typer.BadParameter(f"--{option} {value}: give a number, 0 for no limit, or {DEFAULT}")
    return int(value)


@webhooks.command("create")
def create_webhook(
    url: Annotated[str, typer.Argument(help="https, of a public address.")],
    event: Events = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    as_json: Json = False,
) -> None:
    """Makes a webhook; its secret is printed this once."""
    with Client() as client:
        show_fields(client.webhooks.create(url, event or EVENTS, name=name).raw, as_json=as_json)


@webhooks.command("update")
def update_webhook(
    id: Id,
    url: Annotated[str | None, typer.Option(help="https, of a public address.")] = None,
    event: Events = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it is told.")] = None,
    as_json: Json = False,
) -> None:
    """Changes what is named."""
    with Client() as client:
        changed = client.webhooks.update(id, url=url, events=event or None, name=name, enabled=enabled)
        show_fields(changed.raw, as_json=as_json)


@webhooks.command("rotate")
def rotate_secret(id: Id, as_json: Json = False) -> None:
    """Makes a new secret; it is printed this once, and the old one signs too for a while."""
    with Client() as client:
        show_fields(client.webhooks.rotate(id).raw, as_json=as_json)


@webhooks.command("test")
def test_webhook(id: Id, as_json: Json = False) -> None:
    """Sends it a message."""
    with Client() as client:
        show_fields(client.webhooks.test(id).raw, as_json=as_json)


@webhooks.command("deliveries")
def list_deliveries(id: Id, limit: Limit = 20, as_json: Json = False) -> None:
    """Lists what was sent to it, newest first."""
    with Client() as client:
        _listed(list(islice(client.webhooks.deliveries(id), limit)), DELIVERIES, as_json)


@webhooks.command("redeliver")
def redeliver(id: Id, delivery: Annotated[str, typer.Argument(help="Of `deliveries`.")], as_json: Json = False) -> None:
    """Sends a message once more."""
    with Client() as client:
        made = client.webhooks.redeliver(id, delivery)
    show_done(f"delivery {made.state}", made.raw, as_json=as_json)


@audit.command("list")
def list_audit(
    since: Annotated[datetime | None, typer.Option(help="Not before, in local time.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before, in local time.")] = None,
    actor: Annotated[str | None, typer.Option(help="A key's id, or `oidc:` and who it is.")] = None,
    action: Annotated[str | None, typer.Option(help="create_job, revoke_key, authenticate, ...")] = None,
    object_id: Annotated[str | None, typer.Option("--object", help="What it was done to.")] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, or the code of the error.")] = None,
    limit: Limit = 20,
    as_json: Json = False,
) -> None:
    """Lists who changed what, or was refused, newest first."""
    asked = {"since": since, "until": until, "actor": actor, "action": action, "object_id": object_id}
    filters: Any = {name: value for name, value in {**asked, "outcome": outcome}.items() if value is not None}
    with Client() as client:
        _listed(list(islice(client.audit.list(**filters), limit)), AUDITED, as_json)


@usage.command("show")
def show_usage(
    workspace: Annotated[str | None, typer.Option(help="Id of another workspace, for operators.")] = None,
    as_json: Json = False,
) -> None:
    """Shows what the workspace uses now, and its limits."""
    with Client() as client:
        show_fields(client.usage.get(workspace_id=workspace).raw, as_json=as_json)


def _listed(items: list[Any], columns: Any, as_json: bool) -> None:
    if as_json:
        show_json([item.raw for item in items])
    else:
        show_table(items, columns)
