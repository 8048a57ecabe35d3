"""How API keys look and how they are proved.

``mpk_`` + 12 characters of public prefix + ``_`` + 32 characters of secret (base 32: 160 bits). The prefix finds the
row; HMAC-SHA256 of the whole key under the deployment's pepper proves it, so a stolen database opens nothing.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_KEY = re.compile(rf"mpk_([{_ALPHABET}]{{12}})_[{_ALPHABET}]{{32}}", re.ASCII)


@dataclass(frozen=True)
class NewKey:
    """A key that was just made; `text` is shown once and kept nowhere."""

    text: str
    prefix: str
    hash: bytes


def make_key(pepper: SecretStr) -> NewKey:
    """A fresh random key."""
    prefix, secret = ("".join(secrets.choice(_ALPHABET) for _ in range(length)) for length in (12, 32))
    text = f"mpk_{prefix}_{secret}"
    return NewKey(text, prefix, hash_key(text, pepper))


def prefix_of(text: str) -> str | None:
    """The public prefix of a key; None where `text` does not look like one."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def hash_key(text: str, pepper: SecretStr) -> bytes:
    """What is stored of a key."""
    return hmac.digest(pepper.get_secret_value().encode(), text.encode(), hashlib.sha256)
