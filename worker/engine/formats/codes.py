"""The stable codes of everything that can be wrong with a model file.

Each has its paragraph in docs/formats.md; `UnsafeFile` always carries ``unsafe_format``.
"""

from typing import Final

EMPTY_FILE: Final = "empty_file"
UNKNOWN_FORMAT: Final = "unknown_format"
FORMAT_MISMATCH: Final = "format_mismatch"
FILE_DAMAGED: Final = "file_damaged"
FILE_INCOMPLETE: Final = "file_incomplete"
ARCHIVE_TOO_LARGE: Final = "archive_too_large"
ARCHIVE_UNSAFE_NAMES: Final = "archive_unsafe_names"
SCHEMA_INVALID: Final = "schema_invalid"
SCHEMA_VERSION: Final = "schema_version_unsupported"
WEIGHTS_INVALID: Final = "weights_invalid"
GRAPH_INVALID: Final = "graph_invalid"
EXTERNAL_DATA: Final = "external_data_refused"
UNSUPPORTED_OPERATOR: Final = "unsupported_operator"
UNSUPPORTED_ATTRIBUTE: Final = "unsupported_attribute"
UNSUPPORTED_ARCHITECTURE: Final = "unsupported_architecture"
UNSUPPORTED_INPUT: Final = "unsupported_input"
STATEFUL_MODEL: Final = "stateful_model"

#: Every code that `worker.engine.formats` may raise: what the documentation must cover.
ALL: Final = frozenset(value for name, value in dict(vars()).items() if name.isupper()) | {"unsafe_format"}
