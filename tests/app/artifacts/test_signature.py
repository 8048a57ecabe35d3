"""``/v1/artifacts/{id}/signature`` and the key that goes with it."""

import base64
import json
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import SecretStr

from app.tables import Artifact
from tests.support.artifacts import new_key

pytestmark = pytest.mark.anyio


async def test_signature_of_an_artifact(make_api: Any, make_artifact: Any) -> None:
    """An artifact that was made before there was a key has one too."""
    api = await make_api(signing_key=new_key())
    artifact = await make_artifact(api)
    client = await api.client("reader")
    response = await client.get(f"/v1/artifacts/{artifact.id}/signature")
    assert response.headers["content-type"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    envelope = response.json()["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["predicate"]["resources"] == [{"name": ".", "algorithm": "sha256", "digest": artifact.sha256}]
    assert statement["subject"][0]["name"] == artifact.filename
    pem = await client.get("/v1/signing-key")
    assert pem.headers["content-type"] == "application/x-pem-file"
    assert isinstance(load_pem_public_key(pem.content), ec.EllipticCurvePublicKey)


async def test_no_signature_of_what_others_have(make_api: Any, make_artifact: Any) -> None:
    api = await make_api(signing_key=new_key())
    artifact = await make_artifact(api)
    stranger = await api.client("operator", "theirs")
    response = await stranger.get(f"/v1/artifacts/{artifact.id}/signature")
    assert (response.status_code, response.json()["code"]) == (404, "artifact_not_found")


async def test_without_a_key(client: httpx2.AsyncClient, artifact: Artifact) -> None:
    for path in (f"/v1/artifacts/{artifact.id}/signature", "/v1/signing-key"):
        response = await client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "signing_disabled")


async def test_a_wrong_key_stops_the_start(make_api: Any) -> None:
    with pytest.raises(ValueError, match="MODELPRESS_SIGNING_KEY"):
        await make_api(signing_key=SecretStr("no key"))
