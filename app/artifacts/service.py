"""What can be done with artifacts."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.caller import Caller
from app.artifacts import bom, repository
from app.artifacts.packages import LAYOUTS, Layout, Subject
from app.artifacts.packages.backends import BACKENDS, why_unserved
from app.artifacts.packages.tensors import Tensors, read
from app.artifacts.schemas import Named
from app.artifacts.untrusted import mapping, text
from app.errors import Invalid, NotFound
from app.models import repository as models
from app.signing import Signer
from app.storage import ObjectMissing
from app.tables import Artifact
from app.web.archive import Archive
from app.web.services import Services

_LONGEST_NAME: Final = 63


async def get(session: AsyncSession, caller: Caller, artifact_id: str) -> Artifact:
    """The caller's artifact. Raises `NotFound`."""
    artifact = await repository.find(session, caller.workspace_id, artifact_id)
    if artifact is None:
        raise NotFound(f"There is no artifact {artifact_id!r} in this workspace.", code="artifact_not_found")
    return artifact


async def signature(session: AsyncSession, caller: Caller, artifact_id: str, signer: Signer | None) -> dict[str, Any]:
    """The artifact's signature, made now, of the digest that was taken when its bytes were kept. Raises `NotFound`."""
    artifact = await get(session, caller, artifact_id)
    return enabled(signer).sign(artifact.filename, artifact.sha256)


def enabled(signer: Signer | None) -> Signer:
    """The deployment's signer. Raises `NotFound` where it has no key."""
    if signer is None:
        raise NotFound("This deployment signs no artifacts: it has no signing key.", code="signing_disabled")
    return signer


async def bill(session: AsyncSession, caller: Caller, artifact_id: str) -> dict[str, Any]:
    """The artifact's bill of materials. Raises `NotFound`."""
    artifact = await get(session, caller, artifact_id)
    return await _bill(session, artifact, await _facts(session, artifact))


async def _bill(session: AsyncSession, artifact: Artifact, facts: Mapping[str, Any]) -> dict[str, Any]:
    return bom.bill(artifact, mapping(await repository.figures_of(session, artifact)), facts)


async def _facts(session: AsyncSession, artifact: Artifact) -> Mapping[str, Any]:
    """What the check of the uploaded model told; empty where it is no longer there."""
    model_id = text(mapping(mapping(artifact.manifest.get("inputs")).get("model")).get("id"))
    model = await models.find(session, artifact.workspace_id, model_id)
    return mapping(model.facts if model else None)


async def packages(session: AsyncSession, caller: Caller, artifact_id: str) -> dict[Layout, Invalid | None]:
    """Each layout with what speaks against it for this artifact. Raises `NotFound`."""
    artifact = await get(session, caller, artifact_id)
    return dict.fromkeys(LAYOUTS, _fault(artifact, _tensors(artifact, await _facts(session, artifact))))


async def package(
    session: AsyncSession, services: Services, caller: Caller, artifact_id: str, layout: Layout, asked: Named
) -> Archive:
    """The artifact as a server loads it, with manifest, bill of materials and, where there is a key, the signature.

    Raises:
        NotFound: no such artifact, or its bytes are gone.
        Invalid: ``package_unsupported``, ``tensors_unknown``, ``artifact_damaged``.
    """
    artifact = await get(session, caller, artifact_id)
    facts = await _facts(session, artifact)
    tensors = _tensors(artifact, facts)
    fault = _fault(artifact, tensors)
    if fault is not None or tensors is None:
        raise fault or _unknown(artifact)
    papers = {"manifest.json": artifact.manifest, "bom.json": await _bill(session, artifact, facts)}
    if services.signer is not None:
        papers["model.sig"] = services.signer.sign(artifact.filename, artifact.sha256)
    backend = BACKENDS[artifact.format]
    try:
        files = await backend.contents(services.store, artifact)
    except ObjectMissing as error:
        raise NotFound("The bytes are no longer in the store.", code="content_missing") from error
    name = asked.name or _model_name(artifact.filename)
    subject = Subject(
        artifact_id=artifact.id,
        sha256=artifact.sha256,
        backend=backend.name,
        tensors=tensors,
        files=files,
        papers={paper: json.dumps(content, indent=2, sort_keys=True).encode() for paper, content in papers.items()},
        name=name,
        version=asked.version,
    )
    entries = LAYOUTS[layout].entries(subject)
    return Archive(artifact.workspace_id, artifact.sha256, artifact.created_at, f"{name}.{layout}.zip", entries)


def _tensors(artifact: Artifact, facts: Mapping[str, Any]) -> Tensors | None:
    return read(mapping(artifact.manifest.get("tensors")), facts)


def _fault(artifact: Artifact, tensors: Tensors | None) -> Invalid | None:
    if artifact.format not in BACKENDS:
        why = why_unserved(artifact.format)
        return Invalid(f"{artifact.filename!r} cannot be packaged: {why}.", code="package_unsupported")
    return _unknown(artifact) if tensors is None else None


def _unknown(artifact: Artifact) -> Invalid:
    return Invalid(
        f"The inputs and outputs of {artifact.filename!r} are not known: its manifest is of an older version and the "
        "uploaded model is gone, or they have a type that the server has no name for. Run the job again.",
        code="tensors_unknown",
    )


def _model_name(filename: str) -> str:
    """``resnet18.int8.onnx`` -> ``resnet18``."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", filename.split(".")[0]).strip("_-")[:_LONGEST_NAME] or "model"
