"""``dtwpt invariance``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

import dtwpt
from dtwpt.cli.options import (
    Shift,
    Size,
    Window,
    given,
    on_error_option,
    picture_options,
    wavelet_option,
)
from dtwpt.cli.terminal import (
    SHOWN,
    SOME_SKIPPED,
    need_matplotlib,
    note,
    one_line,
    plural,
    quiet_libraries,
    show_progress,
    tell_skipped,
)

if TYPE_CHECKING:
    from dtwpt.extract import Skipped
    from dtwpt.report.analysis import Analysis
    from dtwpt.report.images import Crops
    from dtwpt.report.pictures import Style


@click.command()
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@click.option("-o", "--output", required=True, type=click.Path(), help="The folder to write.")
@click.option(
    "--depth",
    type=click.IntRange(2, 4),
    default=2,
    show_default=True,
    help="Number of stages of the packets.",
)
@wavelet_option
@click.option(
    "--shift",
    "shifts",
    type=Shift(),
    multiple=True,
    default=[(0.0, 1.0)],
    help="How the picture moves, pixels down and right; may be repeated. Pictures are of the first "
    "one.  [default: 0,1]",
)
@click.option(
    "--pool",
    type=Window(),
    metavar="N",
    default=3,
    show_default=True,
    help="Side of the pooling window, odd (2 q + 1).",
)
@click.option(
    "--spectrum",
    type=click.Choice(["pink", "white"]),
    default="pink",
    show_default=True,
    help="Noise that is predicted for without images: pink is like photographs.",
)
@click.option(
    "--crop",
    type=Size(),
    help="The middle of each image; one number: a square.  [default: 256, or the shorter side of "
    "the smallest image]",
)
@click.option(
    "--kernels",
    type=click.Path(),
    metavar="FILE",
    help="Analyse a first layer instead of packets: .npy, .pt, .pth or .safetensors.",
)
@click.option("--key", help="Which tensor of the file of kernels, such as conv1.weight.")
@click.option(
    "--stride",
    type=click.IntRange(1, 8),
    default=2,
    show_default=True,
    help="Of the layer's convolution, before pooling with stride 2.",
)
@on_error_option("stop")
@picture_options(160)
@click.pass_context
def invariance(
    ctx: click.Context,
    /,
    *,
    images: tuple[str, ...],
    output: str,
    depth: int,
    wavelet: str,
    shifts: tuple[tuple[float, float], ...],
    pool: int,
    spectrum: str,
    crop: int | tuple[int, int] | None,
    kernels: str | None,
    key: str | None,
    stride: int,
    on_error: str | None,
    dpi: int,
    size: tuple[float, ...] | None,
    no_title: bool,
) -> None:
    """Report how stable filters are when the picture moves.

    For every packet, or every kernel of a network's first layer: how much the outputs of a complex
    modulus (CMod) and of max pooling (RMax) change, predicted from a power spectrum. With IMAGES
    (files, folders, quoted patterns), measured on the middle of each as well, and predicted from
    their own spectra.

    \b
    Examples:
      dtwpt invariance -o report
      dtwpt invariance photos/ -o report --depth 3 --shift 0,1 --shift 1,1
      dtwpt invariance photos/ -o report --kernels resnet18.pt --key conv1.weight

    Writes a folder: index.html, which holds all pictures and how to read them, the pictures as
    PNG, and filters.csv, every number with its standard error. It appears, or replaces the report
    there was, once it is complete. A .pt file is read without running anything that it holds.

    Exit status: 0 all done; 1 failed; 2 wrong usage; 3 written, but without the images that were
    skipped; 128 + n stopped by signal n.
    """  # noqa: D301
    names = given(ctx)
    _check_together(names, bool(images), kernels is not None)
    need_matplotlib()
    # Before the slow imports and the work.
    from dtwpt.report.folder import check_folder

    check_folder(output)
    from dtwpt.extract import find_images  # which says what is missing, threadpoolctl included
    from dtwpt.report.analysis import analyse_layer, analyse_packets, least_size
    from dtwpt.report.kernels import load_kernels
    from dtwpt.report.settings import describe, retell

    q = pool // 2
    shifts = tuple(dict.fromkeys(shifts))
    packets = dtwpt.PacketBank(depth, wavelet)
    layer = None
    if kernels is not None:
        layer, key = load_kernels(kernels, key)
    m = 2 ** (depth - 1) if layer is None else stride
    least = least_size(packets if layer is None else layer, m, q, shifts)
    files = find_images(images) if images else []
    crops: Crops | None = None
    skipped: list[Skipped] = []
    from threadpoolctl import threadpool_limits

    # Many small matrices: more threads than one gain little, lose much beside other work, and
    # round differently from machine to machine.
    with (
        quiet_libraries(),
        threadpool_limits(1),
        show_progress("step") as progress,
    ):
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, 3 * len(files))

        if files:
            crops, skipped = _crops(files, crop, least, step, on_error == "skip")
        if layer is not None:
            analysis = analyse_layer(layer, shifts, stride, q, spectrum, crops, step)
        else:
            analysis = analyse_packets(packets, shifts, q, spectrum, crops, step)
    settings = describe(analysis, kernels, key) + _listed(skipped)
    options = {name.replace("_", "-"): ctx.params[name] for name in sorted(names)}
    command = retell(images, options)
    from dtwpt.report.pictures import Style

    _write(output, analysis, settings, command, Style(dpi, size, not no_title))
    if analysis.blank:
        note(
            f"note: {plural(len(analysis.blank), 'kernel')} left out, without an answer to grey "
            f"images: {', '.join(map(str, analysis.blank[:SHOWN]))}"
        )
    written = os.path.join(output, "index.html")
    tell_skipped(skipped, written)
    on = ", theory alone" if crops is None else f" on {plural(len(crops.files), 'image')}"
    left_out = f", {len(skipped)} skipped" if skipped else ""
    what = "packet" if layer is None else "kernel"
    click.echo(
        one_line(
            f"{written}: {plural(len(analysis.filters), what)} x "
            f"{plural(len(shifts), 'shift')}{on}{left_out}"
        )
    )
    if skipped:
        ctx.exit(SOME_SKIPPED)


def _crops(
    files: list[str],
    crop: int | tuple[int, int] | None,
    least: tuple[int, int],
    step: Callable[[], None],
    skip: bool,
) -> tuple[Crops, list[Skipped]]:
    """Read the middle of images, all but those that cannot be used if they may be skipped."""
    from dtwpt.extract import ImageError, Skipped
    from dtwpt.report.images import Crops, read_crops

    alone: list[Crops] = []
    errors: list[ImageError] = []
    for file in files:
        try:
            alone.append(read_crops([file], crop, least, step))
        except ImageError as error:
            if not skip:
                raise
            errors.append(error)
            for _ in range(3):  # as often as others are read
                step()
    if not alone:
        raise errors[0]
    used = [file for crops in alone for file in crops.files]
    skipped = [Skipped(error.path, error.reason) for error in errors]
    # Where no crop is given, the smallest image says how large all are.
    return Crops(used, min(crops.size for crops in alone)), skipped


def _listed(skipped: list[Skipped]) -> list[tuple[str, str]]:
    """Return the row of the report on what is left out, if anything is."""
    lines = [one_line(f"{file}: {reason}") for file, reason in skipped]
    text = "; ".join(lines).encode("utf-8", "backslashreplace").decode()
    return [("skipped", text)] if skipped else []


def _write(
    output: str, analysis: Analysis, settings: list[tuple[str, str]], command: str, style: Style
) -> None:
    from dtwpt.report.folder import write_report
    from dtwpt.report.page import page
    from dtwpt.report.pictures import draw

    pictures = draw(analysis, style)
    contents = {picture.name: picture.png for picture in pictures}
    contents["filters.csv"] = analysis.csv()
    contents["index.html"] = page(analysis, pictures, settings, command)
    write_report(output, contents)


def _check_together(names: set[str], images: bool, kernels: bool) -> None:
    """Refuse options that would change nothing."""
    for name, used, why in (
        ("spectrum", not images, "is for a report without images, which bring their own spectra"),
        ("crop", images, "is for images"),
        ("on_error", images, "is for images"),
        ("depth", not kernels, "is for packets, not for --kernels"),
        ("wavelet", not kernels, "is for packets, not for --kernels"),
        ("key", kernels, "is for --kernels"),
        ("stride", kernels, "is for --kernels; that of packets follows from --depth"),
    ):
        if name in names and not used:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}", click.get_current_context())
