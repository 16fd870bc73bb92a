"""``dtwpt invariance``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

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
    from dtwpt.report.analysis import Analysis, Crops
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
    help="Shift of the picture, pixels down and right; may be repeated. Pictures are of the first "
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
    help="Noise model of the prediction without images: pink is like photographs.",
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
@click.option("--relu", is_flag=True, help="Of --kernels: a ReLU comes before pooling.")
@click.option("--bias", metavar="KEY", help="Tensor of the biases, such as conv1.bias.")
@click.option(
    "--norm",
    metavar="PREFIX",
    help="What the names of the batch normalisation's tensors begin with, such as bn1.",
)
@click.option(
    "--layer",
    type=click.Path(),
    metavar="FILE",
    help="Analyse a whole first layer that dtwpt.invariance.Layer.save wrote.",
)
@click.option(
    "--design",
    is_flag=True,
    help="Choose filters for a layer: Gabor filters or, with --depth, packets, ranked.",
)
@click.option(
    "--budget",
    type=click.IntRange(1, 512),
    default=16,
    show_default=True,
    help="Number of filters that --design chooses.",
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
    relu: bool,
    bias: str | None,
    norm: str | None,
    layer: str | None,
    design: bool,
    budget: int,
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
      dtwpt invariance photos/ -o report --kernels resnet18.pt --key conv1.weight --norm bn1 --relu
      dtwpt invariance photos/ -o report --layer stem.npz
      dtwpt invariance photos/ -o report --design --stride 2 --budget 16

    With --relu, --bias, --norm or --layer the whole layer counts, and it gets the images in colour,
    from 0 to 1. With --design, filters are chosen that change least while they see as much of the
    images; the table ranks all candidates, and kernels.npy holds the chosen ones.

    Writes a folder: index.html, which holds all pictures and how to read them, the pictures as
    PNG, and filters.csv, every number with its standard error. It replaces an existing report only
    once it is complete. A .pt file is read without running code in it.

    Exit status: 0 all done; 1 failed; 2 wrong usage; 3 written, but without the images that were
    skipped; 128 + n stopped by signal n.
    """  # noqa: D301
    names = given(ctx)
    whole = relu or bias is not None or norm is not None
    _check_together(names, bool(images), kernels is not None, layer is not None, design)
    need_matplotlib()
    # Before the slow imports and the work.
    from dtwpt.report.folder import check_folder

    check_folder(output)
    from dtwpt.invariance import Layer
    from dtwpt.report.analysis import analyse_layer, analyse_packets, least_size
    from dtwpt.report.kernels import load_kernels, load_layer
    from dtwpt.report.page import describe, retell
    from dtwpt.report.pictures import Style

    shifts = tuple(dict.fromkeys(shifts))
    if design:
        _design(ctx, names, shifts)
        return
    q = pool // 2
    packets = dtwpt.PacketBank(depth, wavelet)
    seen: Any = None
    if layer is not None:
        seen = Layer.load(layer)
    elif kernels is not None and whole:
        seen, key = load_layer(
            kernels, key, bias=bias, norm=norm, relu=relu, stride=stride, window=pool
        )
    elif kernels is not None:
        seen, key = load_kernels(kernels, key)
    m = 2 ** (depth - 1) if seen is None else stride
    least = least_size(packets if seen is None else seen, m, q, shifts)
    with _work(images, crop, least, on_error == "skip") as (crops, skipped, step):
        if seen is not None:
            analysis = analyse_layer(seen, shifts, stride, q, spectrum, crops, step)
        else:
            analysis = analyse_packets(packets, shifts, q, spectrum, crops, step)
    settings = describe(analysis, kernels, key) + _listed(skipped)
    command = retell(images, _options(ctx, names))
    _write(output, analysis, settings, command, Style(dpi, size, not no_title))
    if analysis.blank:
        note(
            f"note: {plural(len(analysis.blank), 'kernel')} left out, without an answer to "
            f"{'any images' if analysis.layer is not None else 'grey images'}: "
            f"{', '.join(map(str, analysis.blank[:SHOWN]))}"
        )
    what = "packet" if seen is None else "kernel"
    _tell(
        ctx,
        f"{plural(len(analysis.filters), what)} x {plural(len(shifts), 'shift')}",
        crops,
        skipped,
    )


def _design(ctx: click.Context, names: set[str], shifts: tuple[tuple[float, float], ...]) -> None:
    """Choose a layer's filters, and write the report on them."""
    from dtwpt.report.designs import choose, describe_design, design_report, least_crop
    from dtwpt.report.folder import write_report
    from dtwpt.report.page import retell
    from dtwpt.report.pictures import Style

    given = ctx.params
    stride, pool, wavelet = given["stride"], given["pool"], given["wavelet"]
    depth = given["depth"] if "depth" in names else None
    shifts = shifts if "shifts" in names else ((0.0, 1.0), (1.0, 0.0))
    least = least_crop(stride, pool, shifts, depth, wavelet)
    with _work(given["images"], given["crop"], least, given["on_error"] == "skip", 2) as (
        crops, skipped, step,
    ):  # fmt: skip
        found, measured = choose(
            stride, pool, shifts, given["spectrum"], crops, step,
            depth=depth, wavelet=wavelet, budget=given["budget"],
        )  # fmt: skip
    settings = describe_design(found, shifts, depth, wavelet, given["spectrum"], crops)
    command = retell(given["images"], _options(ctx, names))
    style = Style(given["dpi"], given["size"], not given["no_title"])
    settings += _listed(skipped)
    write_report(given["output"], design_report(found, measured, settings, command, style))
    chosen = f"{plural(len(found.chosen), 'filter')} of {len(found.table)} chosen"
    _tell(ctx, chosen, crops, skipped)


def _options(ctx: click.Context, names: set[str]) -> dict[str, Any]:
    return {name.replace("_", "-"): ctx.params[name] for name in sorted(names)}


def _tell(ctx: click.Context, what: str, crops: Crops | None, skipped: list[Skipped]) -> None:
    """Print what was written, and exit."""
    written = os.path.join(ctx.params["output"], "index.html")
    tell_skipped(skipped, written)
    on = ", theory alone" if crops is None else f" on {plural(len(crops.files), 'image')}"
    left_out = f", {len(skipped)} skipped" if skipped else ""
    click.echo(one_line(f"{written}: {what}{on}{left_out}"))
    if skipped:
        ctx.exit(SOME_SKIPPED)


@contextlib.contextmanager
def _work(
    images: tuple[str, ...],
    crop: int | tuple[int, int] | None,
    least: tuple[int, int],
    skip: bool,
    times: int = 3,
) -> Iterator[tuple[Crops | None, list[Skipped], Callable[[], None]]]:
    """Read the images, each of which is seen so many times, and set up the work on them."""
    from dtwpt.extract import find_images  # which says what is missing, threadpoolctl included

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
                progress(done, times * len(files))

        if files:
            crops, skipped = _crops(files, crop, least, step, skip, times)
        yield crops, skipped, step


def _crops(
    files: list[str],
    crop: int | tuple[int, int] | None,
    least: tuple[int, int],
    step: Callable[[], None],
    skip: bool,
    times: int,
) -> tuple[Crops, list[Skipped]]:
    """Read the middle of images, all but those that cannot be used if they may be skipped."""
    from dtwpt.extract import ImageError, Skipped
    from dtwpt.report.analysis import Crops, read_crops

    alone: list[Crops] = []
    errors: list[ImageError] = []
    for file in files:
        try:
            alone.append(read_crops([file], crop, least, step))
        except ImageError as error:
            if not skip:
                raise
            errors.append(error)
            for _ in range(times):  # as often as others are read
                step()
    if not alone:
        raise errors[0]
    used = [file for crops in alone for file in crops.files]
    skipped = [Skipped(error.path, error.reason) for error in errors]
    # Without a given crop, the smallest image sets the size.
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


def _check_together(
    names: set[str], images: bool, kernels: bool, layer: bool, design: bool
) -> None:
    """Refuse options that would have no effect."""
    ctx = click.get_current_context()
    for one, other, both in (
        ("--kernels", "--layer", kernels and layer),
        ("--design", "--kernels", design and kernels),
        ("--design", "--layer", design and layer),
    ):
        if both:
            raise click.UsageError(f"{one} and {other} exclude each other", ctx)
    packets = not (kernels or layer)
    for name, used, why in (
        ("spectrum", not images, "is for a report without images, which bring their own spectra"),
        ("crop", images, "is for images"),
        ("on_error", images, "is for images"),
        ("depth", packets, "is for packets, not for --kernels or --layer"),
        ("wavelet", packets, "is for packets, not for --kernels or --layer"),
        ("wavelet", not design or "depth" in names, "is for packets: give --depth, too"),
        ("pool", not layer, "is a part of the layer"),
        ("key", kernels, "is for --kernels"),
        ("relu", kernels, "is for --kernels"),
        ("bias", kernels, "is for --kernels"),
        ("norm", kernels, "is for --kernels"),
        ("stride", not layer, "is a part of the layer"),
        ("stride", kernels or design or layer,
         "is for --kernels and --design; that of packets follows from --depth"),
        ("budget", design, "is for --design"),
    ):  # fmt: skip
        if name in names and not used:
            raise click.UsageError(f"--{name.replace('_', '-')} {why}", ctx)
