"""Names in zip archives, for models and datasets alike; light, so that the check of a dataset loads no torch for it."""

import zipfile
from typing import Final

_UTF8: Final = 0x800


def encoded_name(info: zipfile.ZipInfo) -> bytes:
    """The name as it is in the file: UTF-8 where the entry says so, else the first PCs' code page, as zipfile reads."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
