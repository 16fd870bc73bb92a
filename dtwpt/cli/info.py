"""``dtwpt info``."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform

import click

import dtwpt
from dtwpt.cli.terminal import cores, one_line

__all__ = ["info"]


@click.command()
def info() -> None:
    """Show versions, the engine and the built-in wavelets.

    What to put into a bug report.

    \b
    Example:
      dtwpt info
    """  # noqa: D301
    rows = [
        ("dtwpt", dtwpt.__version__),
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("cores", str(cores())),
        ("engine", _engine()),
    ]
    for name in (
        *("numpy", "scipy", "torch", "pillow", "tifffile", "imagecodecs", "threadpoolctl"),
        *("zarr", "pyarrow", "ray", "click", "tqdm", "matplotlib", "scikit-learn", "safetensors"),
    ):
        try:
            rows.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
        if name == "torch" and rows[-1][1] != "not installed":
            rows.append(("GPU", _gpu()))
    rows.append(("wavelets", " ".join(dtwpt.wavelets())))
    for name, value in rows:
        click.echo(f"{name:<14}{value}")


def _engine() -> str:
    from dtwpt.engine import cpu, native

    try:
        name = cpu.engine()
    except RuntimeError as error:
        return str(error)
    threads = f"up to {cpu.thread_count()} threads"
    if name == "native":
        return f"native, {native.info()['instruction_set']}, {threads}"
    reason = native.unavailable()
    return f"reference ({reason or 'asked for'})"


def _gpu() -> str:
    try:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return ", ".join(
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            )
    except Exception as error:  # a broken installation is just what this has to report
        return f"torch fails: {one_line(str(error))}"
    return "none that torch can use"
