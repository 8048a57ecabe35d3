"""An artifact's bill of materials: CycloneDX 1.6 with a model card (ML-BOM), out of its row and its job's figures.

Manifests and figures come out of a process that is not trusted: what is not of the expected kind is left out.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from app.artifacts import card
from app.artifacts.untrusted import mapping, sequence, text
from app.tables import Artifact

MEDIA_TYPE = "application/vnd.cyclonedx+json; version=1.6"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_DATA_ROLES = ("calibration", "training", "evaluation")
#: Of the manifest, as properties of the artifact.
_PROPERTIES = ("target", "seed", "device", "threads", "limits", "hardware")


def bill(artifact: Artifact, figures: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """The document.

    Args:
        figures: what was measured of the artifact; empty where nothing was.
        facts: of the uploaded model, as its check told them; empty where it is no longer there.
    """
    manifest = mapping(artifact.manifest)
    inputs = mapping(manifest.get("inputs"))
    datasets, models = _datasets(inputs), _models(inputs)
    model_card = card.model_card(text(manifest.get("task")), facts, figures, [row["bom-ref"] for row in datasets])
    component = {
        "type": "machine-learning-model",
        "bom-ref": artifact.id,
        "name": artifact.filename,
        "hashes": _hashes(artifact.sha256),
        "modelCard": model_card,
        "properties": _properties({**manifest, "target": artifact.target}, _PROPERTIES),
    }
    if "model" in inputs:
        component["pedigree"] = {"ancestors": [_model("model", mapping(inputs["model"]))]}
    return {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'urn:modelpress:artifact:{artifact.id}')}",
        "version": 1,
        "metadata": {
            "timestamp": artifact.created_at.isoformat(),
            "tools": {"components": list(_tools(mapping(manifest.get("versions"))))},
            "component": component,
        },
        "components": [*models, *datasets],
        "dependencies": [{"ref": artifact.id, "dependsOn": [row["bom-ref"] for row in [*models, *datasets]]}],
        "formulation": [{"workflows": [_workflow(artifact.job_id, mapping(manifest.get("recipe")))]}],
    }


def _datasets(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each dataset once, whatever it was used for."""
    roles: dict[str, list[str]] = {}
    found: dict[str, Mapping[str, Any]] = {}
    for role in (role for role in _DATA_ROLES if role in inputs):
        row = mapping(inputs[role])
        key = text(row.get("id")) or role
        found.setdefault(key, row)
        roles.setdefault(key, []).append(role)
    return [
        {
            **_file("data", key, row),
            "data": [{"type": "dataset", "name": text(row.get("filename")) or key}],
            "properties": [_property("role", role) for role in roles[key]],
        }
        for key, row in found.items()
    ]


def _models(inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Models that steps learned from; what the artifact was made of is its ancestor."""
    taken = {"model", text(mapping(inputs.get("model")).get("id")), *_DATA_ROLES}
    return [_model(role, mapping(row)) for role, row in inputs.items() if role not in taken]


def _model(role: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return _file("machine-learning-model", text(row.get("id")) or role, row)


def _file(kind: str, key: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "bom-ref": f"input:{key}",
        "name": text(row.get("filename")) or key,
        "hashes": _hashes(row.get("sha256")),
    }


def _hashes(sha256: object) -> list[dict[str, str]]:
    digest = text(sha256)
    return [{"alg": "SHA-256", "content": digest}] if len(digest) == 64 and digest.isalnum() else []


def _tools(versions: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, version in versions.items():
        if name == "python":
            yield {"type": "platform", "name": name, "version": str(version)}
            continue
        kind = "application" if name == "modelpress-server" else "library"
        purl = f"pkg:pypi/{quote(name.lower(), safe='')}@{quote(str(version), safe='')}"
        yield {"type": kind, "name": name, "version": str(version), "purl": purl}


def _workflow(job_id: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe as steps; a step's parameters are properties, because a formula has no other place for them."""
    steps = [mapping(step) for step in sequence(recipe.get("steps"))]
    return {
        "bom-ref": f"workflow:{job_id}",
        "uid": job_id,
        "name": "compression",
        "taskTypes": ["build", "test"],
        "steps": [
            # The place keeps two equal steps apart, where the schema wants no repetition.
            {
                "name": f"{place}: {text(step.get('method'))}",
                "properties": _properties(step, sorted({*step} - {"method"})),
            }
            for place, step in enumerate(steps, 1)
        ],
    }


def _properties(values: Mapping[str, Any], names: tuple[str, ...] | list[str]) -> list[dict[str, str]]:
    return [_property(name, values[name]) for name in names if values.get(name) is not None]


def _property(name: str, value: object) -> dict[str, str]:
    shown = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return {"name": f"modelpress:{name}", "value": shown}
