"""A real OpenID Connect issuer on the loopback interface: discovery, keys, and tokens signed with them."""

import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning

from tests.support.loopback import Handler, answering

AUDIENCE = "modelpress"


@dataclass
class FakeIssuer:
    """Its address, the keys that it publishes, and how often it was asked for them."""

    url: str
    keys: list[Any] = field(default_factory=list)
    fetched: int = 0
    down: bool = False
    name: str | None = None

    def answer(self, path: str) -> dict[str, Any] | None:
        """What it says at `path`."""
        if self.down:
            return None
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.name or self.url, "jwks_uri": f"{self.url}/keys"}
        self.fetched += 1
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def token(self, key: Any, *, alg: str = "RS256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for a member of ``ours``; claims that are None are left out."""
        now = int(time.time())
        values = {
            "iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 60,
            "modelpress_workspace": "ours", "modelpress_role": "member", **claims,
        }  # fmt: skip
        values = {name: value for name, value in values.items() if value is not None}
        fields = {"alg": alg, "kid": key.kid, **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA
            return jwt.encode(fields, values, key, algorithms=[alg])


def rsa(kid: str) -> Any:
    return jwk.RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


def elliptic(kid: str) -> Any:
    return jwk.ECKey.generate_key("P-256", {"kid": kid})


def edwards(kid: str) -> Any:
    return jwk.OKPKey.generate_key("Ed25519", {"kid": kid})


@contextmanager
def running_issuer() -> Iterator[FakeIssuer]:
    """Serves until the block ends."""

    class Answer(Handler):
        def do_GET(self) -> None:
            body = issuer.answer(self.path)
            self.send_response(200 if body is not None else 503)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

    with answering(Answer) as port:
        issuer = FakeIssuer(f"http://127.0.0.1:{port}")
        yield issuer
