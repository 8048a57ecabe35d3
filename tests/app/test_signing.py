"""Signatures of files: the stock verifier of OpenSSF Model Signing takes them, and nothing else."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from model_signing import verifying
from pydantic import SecretStr

from app.config import Settings
from app.signing import Signer, open_signer

PLAIN = NoEncryption()


def pem(
    key: PrivateKeyTypes,
    format: PrivateFormat = PrivateFormat.PKCS8,
    encryption: KeySerializationEncryption = PLAIN,
) -> str:
    return key.private_bytes(Encoding.PEM, format, encryption).decode()


def signer_of(text: str) -> Signer | None:
    return open_signer(Settings(_env_file=None, signing_key=SecretStr(text)))


@pytest.fixture
def signer() -> Signer:
    made = signer_of(pem(ec.generate_private_key(ec.SECP256R1())))
    assert made is not None
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "net ñ.int8.onnx"
    file.write_bytes(b"weights" * 1000)
    return file


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def downloaded(file: Path, bundle: object, public_key: str) -> tuple[Path, Path]:
    """Signature and key as files beside `file`, as users have them."""
    signature, key = file.with_name("model.sig"), file.with_name("signing-key.pem")
    signature.write_text(json.dumps(bundle))
    key.write_text(public_key)
    return signature, key


def verify(file: Path, bundle: object, public_key: str) -> None:
    """Raises where the stock verifier refuses it."""
    signature, key = downloaded(file, bundle, public_key)
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(file, signature)


def test_the_documented_command_takes_it(signer: Signer, file: Path) -> None:
    downloaded(file, signer.sign(file.name, digest_of(file)), signer.public_key)
    names = [file.name, "--signature", "model.sig", "--public_key", "signing-key.pem"]
    command = [sys.executable, "-m", "model_signing", "verify", "key", *names]
    verified = subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)
    assert (verified.returncode, verified.stdout.strip()) == (0, "Verification succeeded"), verified.stderr


def test_a_renamed_file_is_the_same(signer: Signer, file: Path) -> None:
    bundle = signer.sign(file.name, digest_of(file))
    verify(file.rename(file.with_name("renamed.onnx")), bundle, signer.public_key)


def test_a_changed_byte_is_refused(signer: Signer, file: Path) -> None:
    bundle = signer.sign(file.name, digest_of(file))
    file.write_bytes(b"weights" * 999 + b"Weights")
    with pytest.raises(ValueError, match="Hash mismatch"):
        verify(file, bundle, signer.public_key)


def test_another_key_is_refused(signer: Signer, file: Path) -> None:
    other = signer_of(pem(ec.generate_private_key(ec.SECP256R1())))
    assert other is not None
    with pytest.raises(ValueError, match="Key mismatch"):
        verify(file, signer.sign(file.name, digest_of(file)), other.public_key)


def test_another_statement_is_refused(signer: Signer, file: Path) -> None:
    forged = signer.sign(file.name, "0" * 64)
    forged["dsseEnvelope"]["payload"] = signer.sign(file.name, digest_of(file))["dsseEnvelope"]["payload"]
    with pytest.raises(InvalidSignature):
        verify(file, forged, signer.public_key)


def test_both_forms_of_pem_are_taken() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one, other = signer_of(pem(key)), signer_of(pem(key, PrivateFormat.TraditionalOpenSSL))
    assert one is not None and other is not None
    assert one.public_key == other.public_key


def test_the_same_digest_gives_the_same_signature(signer: Signer) -> None:
    assert signer.sign("net.onnx", "a" * 64) == signer.sign("net.onnx", "a" * 64)


def test_no_key_is_no_signer() -> None:
    assert signer_of("") is None
    assert signer_of("\n") is None


@pytest.mark.parametrize(
    "text",
    [
        "hunter2",
        "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(rsa.generate_private_key(65537, 2048)),
        pem(ec.generate_private_key(ec.SECP256R1()), encryption=BestAvailableEncryption(b"password")),
    ],
)
def test_a_key_that_cannot_sign_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="MODELPRESS_SIGNING_KEY must be") as caught:
        signer_of(text)
    assert text not in str(caught.value)
