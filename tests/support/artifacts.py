"""What the artifact of the tests of `/v1/artifacts` is, and keys to sign it with."""

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

DATA = bytes(range(256)) * 5000
MANIFEST = {"recipe": {"steps": [{"method": "quantize.static"}]}, "seed": 0}


def new_key() -> SecretStr:
    """A signing key of nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    return SecretStr(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
