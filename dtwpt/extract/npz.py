"""Tables as .npz files."""

from __future__ import annotations

import json
import os
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtwpt.extract.atomic import replacing
from dtwpt.extract.settings import Settings
from dtwpt.extract.table import FeatureTable, Skipped

__all__ = ["load_npz", "load_npz_settings", "save_npz"]


def save_npz(table: FeatureTable, path: str | os.PathLike[str]) -> None:
    """Save a table as .npz; see :func:`dtwpt.extract.save`."""
    with replacing(path) as file:
        np.savez(
            file,
            features=table.features,
            feature_names=_strings(table.feature_names),
            files=_strings(table.files),
            settings=np.array(json.dumps({**table.settings.to_dict(), "made_by": table.made_by})),
            skipped=_strings([skipped.file for skipped in table.skipped]),
            skipped_reasons=_strings([skipped.reason for skipped in table.skipped]),
        )


def _strings(strings: list[str]) -> NDArray[np.str_]:
    return np.array(strings, dtype=np.str_)


def load_npz(path: str | os.PathLike[str]) -> FeatureTable:
    """Return the table in a file; see :func:`dtwpt.extract.load`."""
    arrays = _arrays(
        path, "features", "feature_names", "files", "settings", "skipped", "skipped_reasons"
    )
    settings, made_by = _settings(arrays["settings"], path)
    skipped = zip(arrays["skipped"].tolist(), arrays["skipped_reasons"].tolist(), strict=True)
    return FeatureTable(
        features=arrays["features"],
        feature_names=arrays["feature_names"].tolist(),
        files=arrays["files"].tolist(),
        settings=settings,
        skipped=[Skipped(*pair) for pair in skipped],
        made_by=made_by,
    )


def load_npz_settings(path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    """Return settings and versions alone; see :func:`dtwpt.extract.load_settings`."""
    return _settings(_arrays(path, "settings")["settings"], path)


def _arrays(path: str | os.PathLike[str], *names: str) -> dict[str, NDArray[Any]]:
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise _not_features(path) from error


def _settings(array: NDArray[Any], path: str | os.PathLike[str]) -> tuple[Settings, dict[str, str]]:
    try:
        values = json.loads(str(array))
        made_by = {str(name): str(value) for name, value in values.pop("made_by").items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _not_features(path) from error
    try:
        return Settings.from_dict(values), made_by
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings in {os.fspath(path)!r}: {error}") from error


def _not_features(path: str | os.PathLike[str]) -> ValueError:
    return ValueError(f"{os.fspath(path)!r} is not a file of features saved by dtwpt")
