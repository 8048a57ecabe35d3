"""The words of tus 1.0 (https://tus.io/protocols/resumable-upload): headers read and written, nothing else."""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from app.errors import BadRequest, ChecksumMismatch, PreconditionFailed
from app.web.fields import is_storable

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
MEDIA_TYPE = "application/offset+octet-stream"
ALGORITHMS = ("sha1", "sha256", "sha512")

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_KEY = re.compile(r"[!-+\--~]+", re.ASCII)
_MOST_METADATA = 8192


def require_version(sent: str | None) -> None:
    """Raises `PreconditionFailed` where the client does not speak this version."""
    if sent != VERSION:
        raise PreconditionFailed(
            f"Resumable uploads speak tus {VERSION}: send `Tus-Resumable: {VERSION}`.",
            code="tus_version_unsupported",
            headers={"Tus-Version": VERSION},
        )


def number(name: str, sent: str | None) -> int:
    """The header `name` as a number of bytes. Raises `BadRequest`."""
    if sent is None or not _NUMBER.fullmatch(sent):
        raise invalid_header(name, "a whole number of bytes, 0 or more")
    return int(sent)


def metadata(sent: str) -> dict[str, str]:
    """`Upload-Metadata`: pairs of a key and a value in base64, which may be absent.

    Values that are not text are left out: nobody here reads them. Raises `BadRequest`.
    """
    read: dict[str, str] = {}
    if len(sent) > _MOST_METADATA:
        raise invalid_header("Upload-Metadata", f"at most {_MOST_METADATA} characters")
    for pair in sent.split(",") if sent.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not _KEY.fullmatch(key) or key in read:
            raise invalid_header("Upload-Metadata", "`key base64,key base64`, each key once")
        try:
            text = base64.b64decode(value, validate=True).decode()
        except UnicodeDecodeError:
            continue
        except ValueError as error:
            raise invalid_header("Upload-Metadata", f"base64 after the key {key!r}") from error
        if is_storable(text):
            read[key] = text
    return read


def http_date(time: datetime) -> str:
    """`time` as `Upload-Expires` says it."""
    return format_datetime(time.astimezone(UTC), usegmt=True)


@dataclass
class Checksum:
    """`Upload-Checksum`: what the body of a request must hash to."""

    wanted: bytes
    digest: Any = field(repr=False)

    @classmethod
    def of(cls, sent: str | None) -> "Checksum | None":
        """What the header asks for; None where it is absent. Raises `BadRequest`."""
        if sent is None:
            return None
        algorithm, _, value = sent.strip().partition(" ")
        if algorithm not in ALGORITHMS:
            raise BadRequest(
                f"Upload-Checksum must be one of {', '.join(ALGORITHMS)} and a digest in base64.",
                code="checksum_unsupported",
            )
        digest = hashlib.new(algorithm, usedforsecurity=False)
        try:
            wanted = base64.b64decode(value, validate=True)
        except ValueError as error:
            raise invalid_header("Upload-Checksum", "an algorithm and a digest in base64") from error
        if len(wanted) != digest.digest_size:
            raise invalid_header("Upload-Checksum", f"{digest.digest_size} bytes in base64 for {algorithm}")
        return cls(wanted, digest)

    def verify(self) -> None:
        """Raises `ChecksumMismatch` where the bytes are others."""
        if not hmac.compare_digest(self.digest.digest(), self.wanted):
            raise ChecksumMismatch("The bytes do not have the checksum sent with them; none was kept: send them again.")


def invalid_header(name: str, wanted: str) -> BadRequest:
    """The error that says what the header `name` should be."""
    return BadRequest(f"{name} must be {wanted}.", code="invalid_header")
