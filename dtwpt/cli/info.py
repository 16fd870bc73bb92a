"""``dtwpt info``."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform

import click

import dtwpt
from dtwpt.cli.terminal import cores, one_line


@click.command()
def info() -> None:
    """Show versions, engines, GPUs and the built-in wavelets.

    Include the output in bug reports.

    \b
    Example:
      dtwpt info
    """  # noqa: D301
    rows = [
        ("dtwpt", dtwpt.__version__),
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("cores", str(cores())),
        ("engine", cpu_engine()),
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
            rows.append(("GPU", gpu_engine()))
    rows.append(("wavelets", " ".join(dtwpt.wavelets())))
    for name, value in rows:
        click.echo(f"{name:<14}{value}")


def cpu_engine() -> str:
    """Return the engine for arrays and for tensors on the CPU."""
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


def gpu_engine() -> str:
    """Return the GPUs that torch can use, and the engine there."""
    try:
        torch = importlib.import_module("torch")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            return "none that torch can use"
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(count))
    except Exception as error:  # a broken installation must be reported, not raised
        return f"torch fails: {one_line(str(error))}"
    try:
        triton = importlib.import_module("triton")
    except ImportError:
        return f"{names}, reference (no Triton)"
    return f"{names}, Triton {triton.__version__}"
