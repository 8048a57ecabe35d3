"""An example for every command, shown at the end of its `--help`."""

from collections.abc import Mapping

import typer

_BASE = "modelpress"
EXAMPLES: Mapping[str, str] = {
    "compress": "compress model.pt2 --calibration c.npz --evaluation e.npz --method quantize.static "
    "--target onnxruntime --max-drop 0.01 -o out/",
    "check": "check model.onnx --json",
    "models list": "models list --limit 5",
    "models show": "models show mdl_123 --json",
    "models upload": "models upload model.pt2 --name resnet18",
    "models download": "models download mdl_123 -o model.pt2",
    "models delete": "models delete mdl_123",
    "datasets list": "datasets list --json",
    "datasets show": "datasets show dst_123",
    "datasets upload": "datasets upload corpus.jsonl --kind text",
    "datasets download": "datasets download dst_123 -o data/",
    "datasets delete": "datasets delete dst_123",
    "uploads show": "uploads show upl_123",
    "uploads delete": "uploads delete upl_123",
    "jobs list": "jobs list --limit 5",
    "jobs show": "jobs show job_123 --json",
    "jobs create": "jobs create request.json",
    "jobs estimate": "jobs estimate request.json --json",
    "jobs follow": "jobs follow job_123",
    "jobs report": "jobs report job_123",
    "jobs logs": "jobs logs job_123",
    "jobs cancel": "jobs cancel job_123",
    "jobs retry": "jobs retry job_123",
    "jobs delete": "jobs delete job_123",
    "artifacts show": "artifacts show art_123",
    "artifacts download": "artifacts download art_123 -o out/",
    "artifacts packages": "artifacts packages art_123",
    "artifacts package": "artifacts package art_123 triton --name digits -o out/",
    "artifacts manifest": "artifacts manifest art_123",
    "artifacts signature": "artifacts signature art_123 > model.sigstore.json",
    "artifacts bom": "artifacts bom art_123 > model.cdx.json",
    "artifacts signing-key": "artifacts signing-key > modelpress.pub",
    "methods list": "methods list",
    "targets list": "targets list --json",
    "presets list": "presets list",
    "keys list": "keys list",
    "keys create": "keys create ci --role reader --expires 2027-01-31",
    "keys rotate": "keys rotate key_123 --overlap-s 3600",
    "keys revoke": "keys revoke key_123",
    "workspaces list": "workspaces list",
    "workspaces create": "workspaces create vision",
    "workspaces update": "workspaces update wsp_123 --jobs 8 --uploads default",
    "webhooks list": "webhooks list",
    "webhooks show": "webhooks show whk_123",
    "webhooks create": "webhooks create https://ci.example.com/hook --event job.failed",
    "webhooks update": "webhooks update whk_123 --disable",
    "webhooks delete": "webhooks delete whk_123",
    "webhooks rotate": "webhooks rotate whk_123 --json",
    "webhooks test": "webhooks test whk_123",
    "webhooks deliveries": "webhooks deliveries whk_123 --limit 5",
    "webhooks redeliver": "webhooks redeliver whk_123 msg_123",
    "audit list": "audit list --since 2026-11-01 --action create_job",
    "usage show": "usage show --json",
}


def show_in_help(group: typer.Typer, path: str = "") -> None:
    """Gives every command of `group` its example."""
    for command in group.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        command.epilog = f"Example: {_BASE} {EXAMPLES[f'{path} {name}'.strip()]}"
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            show_in_help(inner.typer_instance, f"{path} {inner.name}".strip())
