"""Tables as text, with commas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.table import FeatureTable, as_text

__all__ = ["csv_blocks", "read_csv"]

# Lines that are made at a time.
_LINES = 1000


def csv_blocks(table: FeatureTable) -> Iterator[bytes]:
    """Yield file, label if there are, and features, as short as they give the same float32."""
    labelled = table.labels is not None
    yield _lines([["file", *(["label"] * labelled), *table.feature_names]])
    for start in range(0, len(table.files), _LINES):
        part = slice(start, start + _LINES)
        texts = [as_text(table.files[part])]
        texts += [as_text(table.labels[part])] if table.labels is not None else []
        yield _lines(
            [*some, *map(str, features)]
            for *some, features in zip(*texts, table.features[part], strict=True)
        )


def _lines(rows: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


def read_csv(file: BinaryIO, count: int) -> NDArray[np.float32]:
    """Return the features, which are the last ``count`` columns, and close the file."""
    with io.TextIOWrapper(file, "utf-8", newline="") as text:
        _, *rows = csv.reader(text)
    features = np.empty((len(rows), count), np.float32)
    for place, row in enumerate(rows):
        features[place] = [np.float32(value) for value in row[len(row) - count :]]
    return features
