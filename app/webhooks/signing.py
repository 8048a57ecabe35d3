"""Secrets and signatures (Standard Webhooks 1.0, https://www.standardwebhooks.com).

A secret is HMAC-SHA256 of the webhook's id and a random salt, under the deployment's pepper: the table holds the salt
alone, so a stolen database signs nothing, and a fresh salt is a fresh secret.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime

from pydantic import SecretStr
from standardwebhooks import Webhook as Signer

from app.tables import Webhook

#: Keeps these apart from everything else that is made of the pepper.
_PURPOSE = b"webhook secret\0"


def new_salt() -> bytes:
    """What makes a secret a new one."""
    return secrets.token_bytes(16)


def secret_of(pepper: SecretStr, webhook_id: str, salt: bytes) -> str:
    """The secret as the receiver has it: ``whsec_`` and 32 bytes in base 64."""
    message = _PURPOSE + webhook_id.encode() + b"\0" + salt
    key = hmac.digest(pepper.get_secret_value().encode(), message, hashlib.sha256)
    return "whsec_" + base64.b64encode(key).decode()


def secrets_of(pepper: SecretStr, webhook: Webhook, now: datetime) -> list[str]:
    """Every secret that signs at the time `now`, the newest first."""
    salts = [webhook.salt]
    if (
        webhook.previous_salt is not None
        and webhook.previous_secret_until is not None
        and webhook.previous_secret_until > now
    ):
        salts.append(webhook.previous_salt)
    return [secret_of(pepper, webhook.id, salt) for salt in salts]


def signed_headers(signing_secrets: Sequence[str], message_id: str, now: datetime, body: str) -> dict[str, str]:
    """``webhook-id``, ``webhook-timestamp`` and ``webhook-signature`` (one for each secret). `now` is in UTC."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Signer(secret).sign(message_id, now, body) for secret in signing_secrets),
    }
