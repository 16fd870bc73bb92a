"""The folder of a report, written atomically."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping

from dtwpt.extract.atomic import new_folder, remove_abandoned, sync, temporary_beside

__all__ = ["FILES", "MARK", "check_folder", "write_report"]

#: Identifies a page as one of ours.
MARK = '<meta name="generator" content="dtwpt '
#: All files that a report may hold.
FILES = (
    "index.html",
    "filters.csv",
    "summary.png",
    "plane.png",
    "orientation.png",
    "frequency.png",
    "prediction.png",
    "shift.png",
    "gamma.png",
    "kernels.png",
    "gain.png",
    "design.png",
    "kernels.npy",
)


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raise an OSError if :func:`write_report` could not write ``path``, without changing it.

    An existing folder is replaced only if it is empty or a report, and nothing but a report.
    """
    target, shown = os.path.realpath(path), os.fspath(path)
    if not shown:
        raise FileNotFoundError("the output needs a name")
    _find_again(target)
    if os.path.exists(target):
        if not os.path.isdir(target):
            raise NotADirectoryError(f"the output {shown!r} exists and is not a folder")
        here = os.path.realpath(os.curdir)
        if os.path.commonpath([here, target]) == target:
            raise OSError(
                f"the output {shown!r} holds the folder you are in, which cannot be replaced"
            )
        names = sorted(os.listdir(target))
        if names and not _is_report(target):
            raise FileExistsError(
                f"the output {shown!r} is a folder that is not a report: choose another name"
            )
        others = [name for name in names if name not in FILES]
        if others:
            raise FileExistsError(
                f"the output {shown!r} also holds {others[0]!r}, which is not of the report and "
                "would be lost: move it or choose another name"
            )
    parent = os.path.dirname(target)
    if not os.path.isdir(parent):
        raise FileNotFoundError(f"the folder of the output does not exist: {parent!r}")
    # Only a trial is reliable: there are read-only disks, access lists, root.
    probe = temporary_beside(target)
    try:
        os.mkdir(probe)
    except OSError as error:
        raise type(error)(f"cannot write the output {shown!r}: {error.strerror}") from error
    os.rmdir(probe)


def write_report(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write the files of a report into a temporary folder, then replace ``path`` by it.

    After any exception, ``path`` is unchanged.

    Raises
    ------
    ValueError
        If a name is not one of :data:`FILES`.
    OSError
        If it cannot be written, or ``path`` is something else than a report.
    """
    unknown = sorted(set(files) - set(FILES))
    if unknown:
        raise ValueError(f"not files of a report: {unknown}")
    check_folder(path)
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    old = os.path.join(folder, f".{name}.{secrets.token_hex(8)}.old")
    remove_abandoned(folder)
    with new_folder(target) as new:
        try:
            for name, content in files.items():
                with open(os.path.join(new, name), "xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            sync(new)
            if os.path.isdir(target):
                with contextlib.suppress(OSError):
                    shutil.copymode(target, new)
                os.rename(target, old)
            os.rename(new, target)
            sync(folder)
        except BaseException:
            if os.path.isdir(old) and not os.path.exists(target):
                os.rename(old, target)
            shutil.rmtree(new, ignore_errors=True)
            raise
        finally:
            # Only once the new one stands, or the old one is back.
            if os.path.exists(target):
                shutil.rmtree(old, ignore_errors=True)


def _is_report(folder: str) -> bool:
    try:
        with open(os.path.join(folder, "index.html"), "rb") as file:
            return MARK.encode() in file.read(2000)
    except OSError:
        return False


def _find_again(target: str) -> None:
    """Clean up after a process that was killed while it replaced a report."""
    folder, name = os.path.split(target)
    ours = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}\.old")
    if not os.path.isdir(folder):
        return
    for entry in os.listdir(folder):
        old = os.path.join(folder, entry)
        if ours.fullmatch(entry) and set(os.listdir(old)) <= set(FILES):
            if os.path.lexists(target):
                shutil.rmtree(old, ignore_errors=True)  # or its remainder
            elif _is_report(old):
                os.rename(old, target)
