"""Tokens of a real issuer on loopback, signed with real keys: which are taken, and which never."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc import jwk

from app import oidc
from app.config import Settings
from app.errors import Unauthenticated
from tests.support.issuer import AUDIENCE, FakeIssuer, edwards, elliptic, rsa, running_issuer
from tests.support.stage import open_stage, serving

pytestmark = pytest.mark.anyio
RSA, OTHER_RSA, ELLIPTIC, EDWARDS = rsa("rsa"), rsa("other"), elliptic("ec"), edwards("ed")


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIssuer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_issuer() as issuer:
        issuer.keys = [RSA, ELLIPTIC, EDWARDS]
        yield issuer


Ask = Callable[..., Awaitable[httpx2.Response]]


@pytest.fixture
async def api(make_api: Any, issuer: FakeIssuer) -> Any:
    api = await make_api(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, auth_failures_per_min=0)
    await api.workspace("ours")
    return api


@pytest.fixture
def ask(api: Any) -> Ask:
    async def ask(token: str, path: str = "/v1/models", method: str = "GET") -> httpx2.Response:
        answer = await api.client_with({"Authorization": f"Bearer {token}"}).request(method, path)
        assert isinstance(answer, httpx2.Response)
        return answer

    return ask


async def test_tokens_that_are_taken(issuer: FakeIssuer, ask: Ask) -> None:
    for key, alg in ((RSA, "RS256"), (RSA, "PS256"), (ELLIPTIC, "ES256"), (EDWARDS, "Ed25519"), (EDWARDS, "EdDSA")):
        assert (await ask(issuer.token(key, alg=alg))).status_code == 200, alg
    now = int(time.time())
    assert (await ask(issuer.token(RSA, aud=["other", AUDIENCE]))).status_code == 200
    assert (await ask(issuer.token(RSA, exp=now - 5, nbf=now + 5))).status_code == 200
    assert issuer.fetched == 1


async def test_tokens_that_are_refused(issuer: FakeIssuer, ask: Ask) -> None:
    now = int(time.time())
    wrong = {
        "audience": issuer.token(RSA, aud="other"),
        "no audience": issuer.token(RSA, aud=None),
        "issuer": issuer.token(RSA, iss="http://127.0.0.1/other"),
        "expired": issuer.token(RSA, exp=now - 60),
        "no expiry": issuer.token(RSA, exp=None),
        "not yet": issuer.token(RSA, nbf=now + 60),
        "no subject": issuer.token(RSA, sub=None),
        "another's key under this kid": issuer.token(OTHER_RSA, header={"kid": "rsa"}),
        "a key that it does not have": issuer.token(OTHER_RSA),
        "no kid": issuer.token(RSA, header={"kid": None}),
        "a kid that is no text": issuer.token(RSA).replace(*_with_header({"alg": "RS256", "kid": ["rsa"]}, issuer)),
        "key of another kind": issuer.token(ELLIPTIC, alg="ES256", header={"kid": "rsa"}),
        "cut": issuer.token(RSA)[:-4],
        "dots": "a.b.c",
    }
    for what, token in wrong.items():
        answer = await ask(token)
        assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid"), what
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def _with_header(header: dict[str, Any], issuer: FakeIssuer) -> tuple[str, str]:
    return issuer.token(RSA).partition(".")[0], _b64(json.dumps(header).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["RS256", "none", "HS256"]) | _JSON, "kid": st.just("rsa") | _JSON},
    optional={"crit": _JSON, "typ": _JSON, "b64": _JSON, "jwk": _JSON},
)


@given(header=_HEADERS | _JSON, payload=_JSON | st.binary(max_size=20), signature=st.binary(max_size=300))
@hypothesis_settings(max_examples=150, deadline=None, database=None)
def test_whatever_is_sent_is_refused(header: Any, payload: Any, signature: bytes) -> None:
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload, signature)]
    token = ".".join(_b64(part) for part in parts)
    verifier = oidc.Issuer("https://i.example", AUDIENCE, 0)
    verifier._keys, verifier._fetched, verifier._tried = {"rsa": RSA}, time.monotonic(), time.monotonic()
    with pytest.raises(Unauthenticated):
        asyncio.run(verifier.claims(token))


async def test_a_token_that_is_no_text(ask: Ask) -> None:
    header = _b64(b'{"alg": "RS256", "kid": "rsa", "crit": ["\\ud800"]}')
    assert (await ask(f"{header}.e30.AAAA")).json()["code"] == "token_invalid"


async def test_algorithm_confusion(issuer: FakeIssuer, ask: Ask) -> None:
    """No signature, and the public key as if it were a secret."""
    _, payload, signature = issuer.token(RSA).split(".")
    for alg in ("none", "None", "NONE", "HS256", ""):
        unsigned = _b64(json.dumps({"alg": alg, "kid": "rsa"}).encode())
        for end in ("", signature):
            answer = await ask(f"{unsigned}.{payload}.{end}")
            assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid"), (alg, end)
    public = RSA.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, json.dumps(RSA.as_dict(private=False)).encode()):
        forged = issuer.token(jwk.OctKey.import_key(_b64(secret), {"kid": "rsa"}), alg="HS256")
        assert (await ask(forged)).json()["code"] == "token_invalid"
    # Nor does a shared secret count that the issuer itself publishes.
    assert list(oidc._verifying_keys({"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}, 7, {"kty": "?"}]})) == []
    assert oidc._verifying_keys([]) == {}


async def test_rotation_of_its_keys(issuer: FakeIssuer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await ask(issuer.token(RSA))).status_code == 200
    issuer.keys = [OTHER_RSA]
    assert (await ask(issuer.token(OTHER_RSA))).status_code == 401, "asked a moment ago"
    assert issuer.fetched == 1
    monkeypatch.setattr(oidc, "REFETCH_S", 0.0)
    assert (await ask(issuer.token(OTHER_RSA))).status_code == 200
    assert (await ask(issuer.token(RSA))).status_code == 401
    assert issuer.fetched == 3
    assert (await ask(issuer.token(OTHER_RSA, header={"kid": None}))).status_code == 200, "it has one key"


async def test_issuer_that_does_not_answer(
    api: Any, issuer: FakeIssuer, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.down = True
    away = await ask(issuer.token(RSA))
    assert (away.status_code, away.json()["code"]) == (503, "issuer_unavailable")
    assert (await (await api.client()).get("/v1/models")).status_code == 200, "keys need no issuer"
    issuer.down = False
    assert (await ask(issuer.token(RSA))).status_code == 503, "asked a moment ago"
    monkeypatch.setattr(oidc, "REFETCH_S", 0.0)
    assert (await ask(issuer.token(RSA))).status_code == 200
    issuer.down = True
    monkeypatch.setattr(oidc, "FRESH_S", 0.0)
    assert (await ask(issuer.token(RSA))).status_code == 200, "the keys that it had still count"
    monkeypatch.setattr(oidc, "STALE_S", 0.0)
    assert (await ask(issuer.token(RSA))).status_code == 503
    issuer.down, issuer.name = False, "http://127.0.0.1:1"
    assert (await ask(issuer.token(RSA))).status_code == 503, "it calls itself by another name"


async def test_workspace_and_role(issuer: FakeIssuer, ask: Ask) -> None:
    unknown = await ask(issuer.token(RSA, modelpress_workspace="nowhere"))
    assert (unknown.status_code, unknown.json()["code"]) == (403, "workspace_claim_invalid")
    for value in ("nowhere", None, 7, "a\0", ["ours"]):
        assert (await ask(issuer.token(RSA, modelpress_workspace=value))).status_code == 403
    for value in ("king", None, 7, [], {"a": 1}):
        answer = await ask(issuer.token(RSA, modelpress_role=value))
        assert (answer.status_code, answer.json()["code"]) == (403, "role_claim_invalid")
    reader = await ask(issuer.token(RSA, modelpress_role="reader"), "/v1/models/mdl_x", "DELETE")
    assert reader.json()["code"] == "role_too_weak"
    strongest = await ask(issuer.token(RSA, modelpress_role=["reader", "x", "member"]), "/v1/models/mdl_x", "DELETE")
    assert strongest.status_code == 404
    assert (await ask(issuer.token(RSA, sub="a\0"))).status_code == 401


async def test_tokens_without_a_place_do_not_fill_the_audit_log(make_api: Any, issuer: FakeIssuer) -> None:
    """They are counted like wrong ones; who sent them is known."""
    api = await make_api(oidc_issuer=issuer.url, oidc_audience=AUDIENCE, auth_failures_per_min=3)
    operator = await api.client("operator")
    tokens = [issuer.token(RSA, modelpress_workspace="nowhere"), issuer.token(RSA, modelpress_role="king")]
    codes = []
    for number, path in enumerate(("/v1/models", "/v1/jobs/job_x/events", "/v1/models", "/v1/models", "/v1/models")):
        stranger = api.client_with({"Authorization": f"Bearer {tokens[number % 2]}"})
        codes.append((await stranger.get(path)).json()["code"])
    assert codes == ["workspace_claim_invalid", "role_claim_invalid", codes[0], *["too_many_failures"] * 2]
    events = (await operator.get("/v1/audit")).json()["items"]
    assert [event["outcome"] for event in reversed(events)] == codes[:3]
    assert {(event["actor"], event["action"], event["workspace_id"]) for event in events} == {
        ("oidc:ada", "authenticate", None)
    }
    member = api.client_with({"Authorization": f"Bearer {issuer.token(RSA)}"})
    assert (await member.get("/v1/models")).status_code == 200


async def test_a_stream_ends_with_its_token(settings: Settings, issuer: FakeIssuer, free_port: int) -> None:
    changes = {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE, "oidc_leeway_s": 0, "sse_keepalive_s": 0.2}
    async with open_stage(settings.model_copy(update=changes)) as stage, serving(stage, free_port) as client:
        path, exp = f"/v1/jobs/{await stage.job()}/events", int(time.time()) + 4
        token = issuer.token(RSA, exp=exp, modelpress_workspace="first")
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        async with asyncio.timeout(20):
            stream = await client.get(path, headers=headers)
        assert (stream.status_code, time.time() >= exp) == (200, True)
        assert ": keep-alive" in stream.text
        assert (await client.get(path, headers=headers)).json()["code"] == "token_invalid"


async def test_mapped_roles_and_claims_within_claims(make_api: Any, issuer: FakeIssuer) -> None:
    api = await make_api(
        oidc_issuer=issuer.url,
        oidc_audience=AUDIENCE,
        oidc_role_claim="realm_access.roles",
        oidc_roles={"ml-leads": "admin", "ml": "member"},
    )
    await api.workspace("ours")

    async def audit(roles: list[str]) -> httpx2.Response:
        token = issuer.token(RSA, realm_access={"roles": roles})
        answer = await api.client_with({"Authorization": f"Bearer {token}"}).get("/v1/audit")
        assert isinstance(answer, httpx2.Response)
        return answer

    assert (await audit(["ml", "ml-leads"])).status_code == 200
    events = (await audit(["ml"])).json(), (await audit(["admin"])).json(), (await audit(["ml-leads"])).json()
    assert [event["code"] for event in events[:2]] == ["role_too_weak", "role_claim_invalid"]
    assert [(event["actor"], event["outcome"]) for event in events[2]["items"]] == [("oidc:ada", "role_too_weak")]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"oidc_issuer": "https://i.example"}, "MODELPRESS_OIDC_AUDIENCE"),
        ({"oidc_issuer": "http://i.example", "oidc_audience": "a"}, "https"),
        ({"oidc_issuer": "ftp://127.0.0.1", "oidc_audience": "a"}, "https"),
    ],
)
async def test_settings_that_cannot_be_right(settings: Settings, changes: dict[str, str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        oidc.open_issuer(settings.model_copy(update=changes))
