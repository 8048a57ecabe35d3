"""What the first bytes and the name of an upload tell: files that can carry code are refused before they are stored.

This is a courtesy to the uploader, not a wall: the check of every upload reads the whole file in the sandbox.
"""

import struct
from collections.abc import Iterator

from app.errors import UnsupportedMedia

#: As many bytes as are looked at.
HEAD = 64 * 1024
_PICKLE_NAMES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".joblib")
_ZIP_ENTRY = struct.Struct("<4s5H3L2H")
_TORCHSCRIPT = ("constants.pkl", "code/")

HOW_TO_EXPORT = """\
import torch
program = torch.export.export(model.eval(), (example_input,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
torch.export.save(program, "model.pt2")"""


def refuse_code(filename: str, head: bytes) -> None:
    """Raises `UnsupportedMedia` (``unsafe_format``) for pickles, TorchScript, and names that promise them."""
    kind = _kind(filename, head)
    if kind is not None:
        raise UnsupportedMedia(
            f"{filename!r} is {kind}; reading it could run code, so it is never opened. "
            f"Where you have the model, these three lines write one that can be sent:\n{HOW_TO_EXPORT}\n"
            "Data go into an .npz: numpy.savez('data.npz', input=images, label=labels)",
            code="unsafe_format",
        )


def _kind(filename: str, head: bytes) -> str | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a Python pickle"
    names = list(_zip_names(head))
    if any(name.endswith(_TORCHSCRIPT[0]) or f"/{_TORCHSCRIPT[1]}" in name for name in names):
        return "TorchScript"
    # torch.save writes its pickle first; a .pt2 has pickles of sample inputs further down, which nobody reads.
    if names and names[0].count("/") == 1 and names[0].endswith("/data.pkl"):
        return "a PyTorch checkpoint (a zip with a pickle)"
    if filename.lower().endswith(_PICKLE_NAMES):
        return f"by its name a pickled model ({filename[filename.rindex('.') :]})"
    return None


def _zip_names(head: bytes) -> Iterator[str]:
    """Names of the entries of a zip, as far as the first bytes reach."""
    position = 0
    while position + _ZIP_ENTRY.size <= len(head):
        magic, _, flags, _, _, _, _, size, _, name_length, extra_length = _ZIP_ENTRY.unpack_from(head, position)
        if magic != b"PK\x03\x04":
            return
        start = position + _ZIP_ENTRY.size
        yield head[start : start + name_length].decode("utf-8", "replace")
        if flags & 8 and size == 0:
            # The size stands behind the data: look for the next entry instead.
            position = head.find(b"PK\x03\x04", start + name_length + extra_length)
            if position < 0:
                return
        else:
            position = start + name_length + extra_length + size
