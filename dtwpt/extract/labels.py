"""Labels of images: the names of their folders, or a column of a table."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from dtwpt.extract.inputs import with_keys

#: Types accepted as labels.
Labels: TypeAlias = str | os.PathLike[str] | Mapping[str, str]
#: Returns the label of an image by its absolute path; empty if it has none.
Labelling: TypeAlias = Callable[[str], str]


def labelling(
    labels: Labels | None, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
) -> Labelling | None:
    """Return a function that labels images.

    Parameters
    ----------
    labels : {"folder"}, path, mapping or None
        - "folder": the name of the folder that an image is in.
        - The path of a .csv file (UTF-8) with the columns ``file`` and ``label``.
        - A mapping from files to labels.

        Relative names are resolved from the folder of the .csv file and from the folders in
        ``paths``; those in a mapping also from the working folder.
    paths : path or iterable of paths
        The inputs.

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If the table lacks a column, or gives a file two labels.
    OSError
        If the table cannot be read.

    Examples
    --------
    >>> from dtwpt.extract.labels import labelling
    >>> labelling("folder", [])("/photos/cats/1.png")
    'cats'
    """
    if labels is None:
        return None
    if isinstance(labels, Mapping):
        pairs, here = list(labels.items()), os.curdir
    elif os.fspath(labels) == "folder":
        return lambda key: os.path.basename(os.path.dirname(key))
    else:
        pairs, here = _read(os.fspath(labels)), os.path.dirname(os.fspath(labels))
    given = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    folders = [here, *(os.fspath(path) for path in given if os.path.isdir(path))]
    known: dict[str, str] = {}
    for folder in folders:
        names = [os.path.join(folder, os.fspath(name)) for name, _ in pairs]
        for (key, _), (name, label) in zip(with_keys(names), pairs, strict=True):
            if known.setdefault(key, str(label)) != str(label) and folder == here:
                raise ValueError(f"labels give {name!r} both {known[key]!r} and {label!r}")
    return lambda key: known.get(key, "")


def _read(path: str) -> list[tuple[str, str]]:
    if not path.lower().endswith(".csv"):
        raise ValueError(f'labels must be "folder" or the path of a .csv file, got {path!r}')
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            rows = csv.DictReader(file, strict=True)
            names = rows.fieldnames or ()
            if not {"file", "label"} <= set(names):
                raise ValueError(
                    f"{path!r} must have the columns file and label, has {', '.join(names)}"
                )
            return [(row["file"], row["label"] or "") for row in rows if row["file"]]
        except csv.Error as error:
            raise ValueError(f"{path!r} is not a table of labels: {error}") from error
