"""The command ``dtwpt``: a thin layer over the library."""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

try:
    import click
    from click.core import ParameterSource
except ImportError:
    raise SystemExit('dtwpt: the command needs click: pip install "dtwpt[cli]"') from None

import dtwpt
from dtwpt.borders import MODES
from dtwpt.features import OPERATORS

__all__ = ["cli", "main"]

# Exit statuses; 2 is for wrong usage.
_FAILED = 1
_SOME_SKIPPED = 3

# Skipped files named on the terminal; all are in the output.
_SKIPPED_SHOWN = 20


class _Stopped(BaseException):
    """A signal asks to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


# Values of options ------------------------------------------------------------------------------


class _Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``HxW`` or one number."""

    name = "size"

    def __init__(self, words: tuple[str, ...] = ()) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "|".join((*self.words, "N", "RxC" if self.words else "HxW"))

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int | tuple[int, int]:
        if not isinstance(value, str) or value in self.words:
            result: str | int | tuple[int, int] = value
            return result
        parts = value.lower().split("x")
        if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
            accepted = [*self.words, "a number such as 4", "two such as 4x6"]
            self.fail(f"{value!r} is not {', '.join(accepted[:-1])} or {accepted[-1]}", param, ctx)
        numbers = [int(part) for part in parts]
        if min(numbers) < 1:
            self.fail(f"{value!r}: must be at least 1", param, ctx)
        return (numbers[0], numbers[1]) if len(numbers) == 2 else numbers[0]


class _Shift(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``DY,DX`` in pixels."""

    name = "shift"
    # The grid of the prediction grows with the shift.
    _FARTHEST = 64

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "DY,DX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        if not isinstance(value, str):
            result: tuple[float, float] = value
            return result
        try:
            down, right = (float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers such as 0,1 (down, right)", param, ctx)
        if not (abs(down) <= self._FARTHEST and abs(right) <= self._FARTHEST):  # NaN neither
            self.fail(f"{value!r}: must be {self._FARTHEST} pixels at most", param, ctx)
        if down == right == 0:
            self.fail(f"{value!r}: a shift of nothing changes nothing", param, ctx)
        return down + 0.0, right + 0.0  # no -0


class _Window(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Side of a pooling window, odd."""

    name = "window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            side = int(value)
        except ValueError:
            side = 0
        if side % 2 == 0 or not 3 <= side <= 9:
            self.fail(f"{value!r} is not 3, 5, 7 or 9", param, ctx)
        return side


_depth = click.option(
    "--depth", type=click.IntRange(1, 8), default=2, show_default=True, help="Number of stages."
)
_wavelet = click.option(
    "--wavelet", type=click.Choice(dtwpt.wavelets()), default="qshift_b", show_default=True
)


# Commands ---------------------------------------------------------------------------------------


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(dtwpt.__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Dual-tree complex wavelet packets: image features that are stable under shifts.

    "dtwpt COMMAND --help" tells more about a command, with examples.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="The .npz file to write; with --tile, the .zarr folder.",
)
@click.option(
    "--operator",
    type=click.Choice(list(OPERATORS)),
    default="cmod",
    show_default=True,
    help="Complex modulus, or max pooling of the real part.",
)
@_depth
@_wavelet
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="symmetric",
    show_default=True,
    help="How an image goes on beyond its borders.",
)
@click.option(
    "--colour",
    "--color",
    type=click.Choice(["luma", "channels"]),
    default="luma",
    show_default=True,
    help="Features of the brightness, or of red, green and blue each.",
)
@click.option(
    "--resize",
    type=_Size(),
    help="Resize to height x width; one number: the shorter side, in proportion.",
)
@click.option(
    "--crop",
    type=_Size(),
    help="Cut out the middle, after resizing; one number: a square.",
)
@click.option(
    "--pool",
    type=_Size(("mean", "none")),
    default="mean",
    show_default=True,
    help="Average each map as a whole or over the cells of a grid (rows x columns), or keep all "
    "of its values.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Processes; 0: one for each core. The features do not depend on it.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do about a file that cannot be used.",
)
@click.option(
    "--settings-from",
    type=click.Path(),
    metavar="OLD.npz",
    help="Take the settings of an earlier output; options given beside it win.",
)
@click.option(
    "--tile",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Write whole maps of one large image (.npy, Zarr, TIFF), read in tiles of this side.",
)
@click.pass_context
def extract(
    ctx: click.Context,
    /,
    *,
    paths: tuple[str, ...],
    output: str,
    workers: int,
    on_error: str,
    settings_from: str | None,
    tile: int | None,
    **options: Any,
) -> None:
    """Extract features of images into one .npz file.

    A PATH is an image (PNG, JPEG, TIFF, WebP, BMP, .npy), a folder, searched through for those,
    or a quoted pattern. Nothing is learned: an image's features depend on that image alone.

    \b
    Examples:
      dtwpt extract photos/ -o features.npz
      dtwpt extract 'scans/**/*.tif' -o features.npz --resize 256 --crop 224 --workers 4
      dtwpt extract new/ -o new.npz --settings-from features.npz
      dtwpt extract slide.tif -o maps.zarr --tile 2048

    In Python: numpy.load("features.npz") has the arrays features (images x features, float32),
    feature_names, files, settings (JSON), skipped and skipped_reasons.

    The output appears, or replaces the one there was, once it is complete. Exit status: 0 all
    done; 1 failed, nothing written; 2 wrong usage; 3 written, but without the files that
    --on-error skip left out.
    """  # noqa: D301
    if tile is not None:
        from dtwpt.extract.tile_command import extract_tiles

        chosen = {
            name
            for name in ctx.params
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        with _quiet_libraries():
            said = extract_tiles(paths, output, ctx.params, chosen, note=_note, progress=_progress)
        click.echo(_one_line(said))
        return
    from dtwpt.extract import Settings, find_images, load_settings, save
    from dtwpt.extract import extract as run
    from dtwpt.extract.output import check_npz

    started = time.perf_counter()
    check_npz(output)
    settings = Settings(**options)
    if settings_from is not None:
        settings, made_by = load_settings(settings_from)
        given = {
            name: value
            for name, value in options.items()
            if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        settings = Settings.from_dict({**settings.to_dict(), **given})
        if made_by.get("dtwpt") != dtwpt.__version__:
            _note(
                f"note: {settings_from} was made by dtwpt {made_by.get('dtwpt')}, this is "
                f"{dtwpt.__version__}"
            )
    files = find_images(paths)
    with _quiet_libraries(), _progress(len(files)) as progress:
        table = run(
            files,
            settings,
            workers=workers or _cores(),
            on_error=on_error,
            progress=progress,
        )
        save(table, output)
    seconds = time.perf_counter() - started
    for skipped in table.skipped[:_SKIPPED_SHOWN]:
        _note(f"skipped {skipped.file}: {skipped.reason}")
    if len(table.skipped) > _SKIPPED_SHOWN:
        _note(f"skipped {len(table.skipped) - _SKIPPED_SHOWN} more, all listed in {output}")
    count, length = table.features.shape
    left_out = f", {len(table.skipped)} skipped" if table.skipped else ""
    click.echo(
        _one_line(
            f"{output}: {_plural(count, 'image')} x {_plural(length, 'feature')}{left_out}, "
            f"{seconds:.1f} s ({len(files) / seconds:.1f} images/s)"
        )
    )
    if table.skipped:
        ctx.exit(_SOME_SKIPPED)


@cli.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="The picture to write; its suffix (.png, .pdf, .svg, ...) is its format.",
)
@_depth
@_wavelet
def filters(output: str, depth: int, wavelet: str) -> None:
    """Draw the filters of a packet bank.

    \b
    Examples:
      dtwpt filters -o filters.png
      dtwpt filters -o filters.pdf --depth 3 --wavelet qshift_d
    """  # noqa: D301
    from dtwpt.extract.atomic import check_writable, replacing

    _need_matplotlib()
    from matplotlib.backend_bases import FigureCanvasBase

    import dtwpt.plot

    known = FigureCanvasBase.get_supported_filetypes()
    suffix = os.path.splitext(output)[1].lower().removeprefix(".")
    if suffix not in known:
        raise ValueError(
            f"the output's suffix must be one of {' '.join(f'.{name}' for name in sorted(known))}, "
            f"got {output!r}"
        )
    check_writable(output)
    figure = dtwpt.plot.filters(dtwpt.PacketBank(depth, wavelet))
    with replacing(output) as file:
        figure.savefig(file, format=suffix)
    click.echo(_one_line(output))


@cli.command()
@click.argument("images", nargs=-1, metavar="[IMAGES]...")
@click.option("-o", "--output", required=True, type=click.Path(), help="The folder to write.")
@click.option(
    "--depth",
    type=click.IntRange(2, 4),
    default=2,
    show_default=True,
    help="Number of stages of the packets.",
)
@_wavelet
@click.option(
    "--shift",
    "shifts",
    type=_Shift(),
    multiple=True,
    default=[(0.0, 1.0)],
    help="How the picture moves, pixels down and right; may be repeated. Pictures are of the first "
    "one.  [default: 0,1]",
)
@click.option(
    "--pool",
    type=_Window(),
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
    type=_Size(),
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
    """  # noqa: D301
    given = {
        name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
    _check_together(given, bool(images), kernels is not None)
    _need_matplotlib()
    # Before the slow imports and the work.
    from dtwpt.report.folder import check_folder, write_report

    check_folder(output)
    from dtwpt.extract import find_images  # which says what is missing, threadpoolctl included
    from dtwpt.report.analysis import analyse_layer, analyse_packets, least_size
    from dtwpt.report.images import read_crops
    from dtwpt.report.kernels import load_kernels
    from dtwpt.report.page import page
    from dtwpt.report.pictures import draw
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
    crops = None
    from threadpoolctl import threadpool_limits

    # Many small matrices: more threads than one gain little, lose much beside other work, and
    # round differently from machine to machine.
    with (
        _quiet_libraries(),
        threadpool_limits(1),
        _progress(3 * len(files), "step") as progress,
    ):
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, 3 * len(files))

        if files:
            crops = read_crops(files, crop, least, step)
        if layer is not None:
            analysis = analyse_layer(layer, shifts, stride, q, spectrum, crops, step)
        else:
            analysis = analyse_packets(packets, shifts, q, spectrum, crops, step)
    pictures = draw(analysis)
    settings = describe(analysis, kernels, key)
    command = retell(images, {name: ctx.params[name] for name in sorted(given)})
    contents = {picture.name: picture.png for picture in pictures}
    contents["filters.csv"] = analysis.csv()
    contents["index.html"] = page(analysis, pictures, settings, command)
    write_report(output, contents)
    if analysis.blank:
        _note(
            f"note: {_plural(len(analysis.blank), 'kernel')} left out, without an answer to grey "
            f"images: {', '.join(map(str, analysis.blank[:_SKIPPED_SHOWN]))}"
        )
    on = f" on {_plural(len(files), 'image')}" if files else ", theory alone"
    what = "packet" if layer is None else "kernel"
    click.echo(
        _one_line(
            f"{os.path.join(output, 'index.html')}: {_plural(len(analysis.filters), what)} x "
            f"{_plural(len(shifts), 'shift')}{on}"
        )
    )


def _check_together(given: set[str], images: bool, kernels: bool) -> None:
    """Refuse options that would change nothing."""
    for name, used, why in (
        ("spectrum", not images, "is for a report without images, which bring their own spectra"),
        ("crop", images, "is for images"),
        ("depth", not kernels, "is for packets, not for --kernels"),
        ("wavelet", not kernels, "is for packets, not for --kernels"),
        ("key", kernels, "is for --kernels"),
        ("stride", kernels, "is for --kernels; that of packets follows from --depth"),
    ):
        if name in given and not used:
            raise click.UsageError(f"--{name} {why}", click.get_current_context())


def _need_matplotlib() -> None:
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError('pictures need matplotlib: pip install "dtwpt[plot]"') from error
    matplotlib.use("Agg")  # no display needed


@cli.command()
def info() -> None:
    """Show versions and the built-in wavelets.

    What to put into a bug report.

    \b
    Example:
      dtwpt info
    """  # noqa: D301
    rows = [
        ("dtwpt", dtwpt.__version__),
        ("Python", platform.python_version()),
        ("system", platform.platform()),
        ("cores", str(_cores())),
    ]
    for name in (
        *("numpy", "scipy", "torch", "pillow", "tifffile", "imagecodecs", "threadpoolctl"),
        *("zarr", "click", "tqdm", "matplotlib", "scikit-learn", "safetensors"),
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


def _gpu() -> str:
    try:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return ", ".join(
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            )
    except Exception as error:  # a broken installation is just what this has to report
        return f"torch fails: {_one_line(str(error))}"
    return "none that torch can use"


# The terminal -----------------------------------------------------------------------------------


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Let only Python write to stderr: libtiff and its like have remarks on damaged files."""
    ours = sys.stderr
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    with (
        open(kept, "w", buffering=1, encoding=ours.encoding, errors=ours.errors) as stream,
        open(os.devnull, "wb") as nowhere,
    ):
        try:
            os.dup2(nowhere.fileno(), 2)  # worker processes inherit it
            sys.stderr = stream
            yield
        finally:
            sys.stderr = ours
            os.dup2(kept, 2)


@contextmanager
def _progress(total: int, unit: str = "image") -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on a terminal, nothing elsewhere; it goes when the work is done."""
    if not total or not sys.stderr.isatty():
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError('the progress bar needs tqdm: pip install "dtwpt[cli]"') from error
    with tqdm(total=total, unit=unit, leave=False) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


def _cores() -> int:
    if hasattr(
        os, "sched_getaffinity"
    ):  # fewer than the machine has, in a container or a batch job
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    """Return text without what would break a line or a terminal, such as a newline in a name."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _note(text: str) -> None:
    click.echo(_one_line(text), err=True)


class _Stop:
    """Handler of the signals that ask to stop."""

    # While leaving, one that comes right after another (an impatient Ctrl-C) changes nothing.
    _PATIENCE = 5.0

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= self._PATIENCE:
            self._last = now
            raise _Stopped(number)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command and exit; every failure that is not a bug is one line on stderr.

    Parameters
    ----------
    args : list of str, optional
        Default: those of the process.
    """
    _on_stop_signals(_Stop())
    sys.exit(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        # Commands return nothing; a status comes from ctx.exit and --help.
        return int(cli.main(args, prog_name="dtwpt", standalone_mode=False) or 0)
    except _Stopped as stopped:
        # The rest is the interpreter's own leaving.
        _on_stop_signals(signal.SIG_IGN)
        name = signal.Signals(stopped.number).name
        _note(f"dtwpt: stopped by {'Ctrl-C' if name == 'SIGINT' else name}, nothing written")
        return 128 + stopped.number
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else "dtwpt"
        _note(f"{where}: {error.format_message()} (see {where} --help)")
        return error.exit_code
    except OSError as error:
        # Without its "[Errno 2]", which tells a person nothing.
        _note(f"dtwpt: {f'{error.filename}: {error.strerror}' if error.filename else error}")
    except MemoryError as error:
        _note(f"dtwpt: not enough memory: {error}")
    except (ImportError, TypeError, ValueError) as error:
        _note(f"dtwpt: {error}")
    return _FAILED


def _on_stop_signals(handler: Any) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has not got them all
        # One that is ignored (nohup, a job in the background) stays ignored.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
