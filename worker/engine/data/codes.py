"""The stable codes of everything that can be wrong with a dataset; ``unsafe_format`` is `UnsafeFile`'s."""

from typing import Final

EMPTY_FILE: Final = "empty_file"
UNKNOWN_FORMAT: Final = "unknown_format"
FILE_DAMAGED: Final = "file_damaged"
FILE_INCOMPLETE: Final = "file_incomplete"
ARCHIVE_TOO_LARGE: Final = "archive_too_large"
COLUMN_INVALID: Final = "dataset_column_invalid"
LENGTHS_DIFFER: Final = "dataset_lengths_differ"
COLUMNS_MISMATCH: Final = "dataset_columns_mismatch"
DTYPE_MISMATCH: Final = "dataset_dtype_mismatch"
SHAPE_MISMATCH: Final = "dataset_shape_mismatch"
INDEX_OUT_OF_RANGE: Final = "dataset_index_out_of_range"
NOT_FINITE: Final = "dataset_not_finite"
TOO_FEW_SAMPLES: Final = "dataset_too_few_samples"
TEXT_INVALID: Final = "dataset_text_invalid"
TOKENIZER_INVALID: Final = "tokenizer_invalid"
KIND_UNSUPPORTED: Final = "dataset_kind_unsupported"
FIXED_BATCH: Final = "fixed_batch_unsupported"
LABELS_OUT_OF_RANGE: Final = "labels_out_of_range"
LABELS_DTYPE: Final = "labels_dtype_mismatch"
LABELS_SHAPE: Final = "labels_shape_mismatch"
LABELS_REQUIRED: Final = "labels_required"
DATA_REQUIRED: Final = "evaluation_data_required"

#: Every code that a dataset may be refused with: what the documentation must cover.
ALL: Final = frozenset(value for name, value in dict(vars()).items() if name.isupper()) | {"unsafe_format"}
