"""Signatures of single files in the format of OpenSSF Model Signing 1.0 (OMS), with a private key of the deployment.

What is signed is an in-toto statement with the file's SHA-256, in a DSSE envelope, in a Sigstore bundle, so that
``model_signing verify key`` takes it: https://github.com/ossf/model-signing-spec. Why it is written here, and not by
the library: docs/decisions/0014-signatures-made-on-demand.md.
"""

import base64
import hashlib
import json
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from app.config import Settings

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
#: How OMS names a model that is one file: its path relative to itself.
_ITSELF = "."


def open_signer(settings: Settings) -> "Signer | None":
    """The signer of the settings; None where there is no key.

    Raises:
        ValueError: the key is not a PEM of an unencrypted EC P-256 private key; the message does not show it.
    """
    pem = settings.signing_key.get_secret_value()
    if not pem.strip():
        return None
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("MODELPRESS_SIGNING_KEY must be the PEM of an EC P-256 private key without a password")
    return Signer(key)


class Signer:
    """Signs digests of files; the same digest and name give the same signature (RFC 6979).

    Attributes:
        public_key: PEM, for whoever verifies.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.public_key = pem.decode()
        self._hint = hashlib.sha256(pem).hexdigest()

    def sign(self, filename: str, sha256: str) -> dict[str, Any]:
        """The Sigstore bundle, ready to be written as JSON (``model.sig``).

        Args:
            filename: what the file is called; tells people, and is not compared when it is verified.
            sha256: of its bytes, in hexadecimal.
        """
        payload = json.dumps(_statement(filename, sha256)).encode()
        signature = self._key.sign(_encoded(payload), ec.ECDSA(SHA256(), deterministic_signing=True))
        return {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self._hint}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": _PAYLOAD_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }


def _statement(filename: str, sha256: str) -> dict[str, Any]:
    """The in-toto statement; its subject is the digest over the digests of all files, here of one."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": filename, "digest": {"sha256": hashlib.sha256(bytes.fromhex(sha256)).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": _ITSELF, "algorithm": "sha256", "digest": sha256}],
        },
    }


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what the signature is really over."""
    return f"DSSEv1 {len(_PAYLOAD_TYPE)} {_PAYLOAD_TYPE} {len(payload)} ".encode() + payload
