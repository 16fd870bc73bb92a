"""Tables as .npz files."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import replacing
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable, Skipped

__all__ = ["load_npz", "load_npz_settings", "not_features", "save_npz", "settings_in"]

# Lists of texts that every table has.
_TEXTS = ("feature_names", "files", "skipped", "skipped_reasons")
# Of an array of texts, each of which takes as much as the longest one.
_MOST_BYTES = 1 << 26


def save_npz(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    """Save a table as .npz; see :func:`dtwpt.extract.save`."""
    about = json.dumps({**table.settings.to_dict(), "made_by": table.made_by})
    arrays: dict[str, Any] = {
        "features": table.features,
        **_strings("feature_names", table.feature_names),
        **_strings("files", table.files),
        "settings": np.array(about),
        **_strings("skipped", [skipped.file for skipped in table.skipped]),
        **_strings("skipped_reasons", [skipped.reason for skipped in table.skipped]),
        **({} if table.labels is None else _strings("labels", table.labels)),
    }
    with replacing(path) as file:
        np.savez(file, **arrays)


def _strings(name: str, strings: list[str]) -> dict[str, NDArray[Any]]:
    """Return the array of texts, or the two that it takes where one is long and there are many."""
    longest = max(map(len, strings), default=0)
    if 4 * longest * len(strings) <= _MOST_BYTES:
        return {name: np.array(strings, dtype=np.str_)}
    texts = [text.encode("utf-8", "surrogateescape") for text in strings]
    return {
        f"{name}_utf8": np.frombuffer(b"".join(texts), np.uint8),
        f"{name}_lengths": np.array([len(text) for text in texts], np.int64),
    }


def _texts(name: str, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """Return the texts that :func:`_strings` has made arrays of."""
    if name in arrays:
        array = arrays[name]
        if array.ndim != 1 or array.dtype.kind != "U":
            raise ValueError
        return list(map(str, array.tolist()))
    whole, lengths = arrays[f"{name}_utf8"], arrays[f"{name}_lengths"]
    stops = np.cumsum(lengths)
    if whole.dtype != np.uint8 or lengths.ndim != 1 or (lengths < 0).any():
        raise ValueError
    if whole.size != (stops[-1] if len(stops) else 0):
        raise ValueError
    text = whole.tobytes()
    pairs = zip((stops - lengths).tolist(), stops.tolist(), strict=True)
    return [text[start:stop].decode("utf-8", "surrogateescape") for start, stop in pairs]


def load_npz(path: str | os.PathLike[str]) -> FeatureTable:
    """Return the table in a file; see :func:`dtwpt.extract.load`."""
    arrays = _arrays(path)
    try:
        settings = arrays["settings"]
        features = arrays["features"]
        names, files, skipped, reasons = (_texts(name, arrays) for name in _TEXTS)
        labels = _texts("labels", arrays) if {"labels", "labels_utf8"} & set(arrays) else None
    except (KeyError, ValueError, TypeError) as error:
        raise not_features(path) from error
    if (
        features.dtype != np.float32
        or features.shape != (len(files), len(names))
        or len(skipped) != len(reasons)
        or len(labels if labels is not None else files) != len(files)
    ):
        raise not_features(path)
    found, made_by = _settings(settings, path)
    left_out = [Skipped(*pair) for pair in zip(skipped, reasons, strict=True)]
    return FeatureTable(features, names, files, found, left_out, made_by, labels)


def load_npz_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return settings and versions alone; see :func:`dtwpt.extract.load_settings`."""
    return _settings(_arrays(path, "settings")["settings"], path)


def _arrays(path: str | os.PathLike[str], *names: str) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = [archive.getinfo(f"{name}.npy") for name in names] or archive.infolist()
            # Nothing is compressed: no small file takes a lot of memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise not_features(path)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                members_read = {name: arrays[name] for name in names or arrays}
    except Exception as error:  # of a damaged archive, which may raise anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk
        raise not_features(path) from error
    # NumPy gives the bytes of a member that does not begin as an array does.
    if not all(isinstance(array, np.ndarray) for array in members_read.values()):
        raise not_features(path)
    return members_read


def _settings(array: NDArray[Any], path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    try:
        values = json.loads(str(array))
    except (ValueError, RecursionError) as error:
        raise not_features(path) from error
    return settings_in(values, path)


def settings_in(values: Any, path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return the settings and versions in what JSON has been read from a file."""
    try:
        values = dict(values)
        made_by = {str(name): str(value) for name, value in values.pop("made_by").items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_features(path) from error
    try:
        return Settings.from_dict(values), made_by
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings in {os.fspath(path)!r}: {error}") from error


def not_features(path: str | os.PathLike[str]) -> ValueError:
    """Return the error of a file that holds something else, or is damaged."""
    return ValueError(f"{os.fspath(path)!r} is not a file of features saved by dtwpt")
