"""``dtwpt extract``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import dtwpt
from dtwpt.cli.jobs import Job, to_store, to_table
from dtwpt.cli.options import (
    Depths,
    Pool,
    Size,
    files_from_option,
    given,
    inputs_of,
    limit_options,
    on_error_option,
    page_options,
    wavelet_option,
)
from dtwpt.cli.terminal import SOME_SKIPPED, cores, note, one_line, tell_skipped
from dtwpt.cli.tiles import extract_tiles
from dtwpt.engine.borders import MODES
from dtwpt.features import OPERATORS

if TYPE_CHECKING:
    from dtwpt.extract import FeatureStore, FeatureTable, Settings


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@files_from_option
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="Output; the suffix names the format: .zarr, .npz, .npy, .csv or .parquet.",
)
@click.option(
    "--operator",
    type=click.Choice(list(OPERATORS)),
    default="cmod",
    show_default=True,
    help="Complex modulus, or max pooling of the real part.",
)
@click.option(
    "--depth",
    type=Depths(),
    default=2,
    show_default=True,
    help="Number of stages, 1 to 8; several, such as 2,3: the features of each.",
)
@wavelet_option
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="symmetric",
    show_default=True,
    help="Padding mode at the borders.",
)
@click.option(
    "--colour",
    "--color",
    type=click.Choice(["luma", "channels"]),
    default="luma",
    show_default=True,
    help="Features of the brightness, or of red, green and blue each.",
)
@page_options
@click.option(
    "--resize",
    type=Size(),
    help="Resize to height x width; one number: the shorter side, in proportion.",
)
@click.option(
    "--crop",
    type=Size(),
    help="Cut out the middle, after resizing; one number: a square.",
)
@click.option(
    "--pool",
    type=Pool(),
    default="mean",
    show_default=True,
    help="Statistic of each map: mean, standard deviation or maximum, or several of them "
    "(mean,std), as a whole or over the cells of a grid (4 or 2x3: means; std,4); none: all of its "
    "values.",
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that read and transform; 1: all in the main one; 0: one for each core. "
    "The features do not depend on it.  [default: 1; for .zarr one for each core, 2 at least]",
)
@click.option(
    "--device",
    default="numpy",
    show_default=True,
    help="Where to transform: numpy, or by torch on cuda, cuda:1, cpu, ... (equal to 1e-5).",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to compute: on this machine, or on a Ray cluster, a worker for each core (.zarr).",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="The cluster for --engine ray; auto: the one of this machine.  [default: RAY_ADDRESS, or "
    "a cluster on this machine, for this run]",
)
@on_error_option("stop; for .zarr skip")
@limit_options
@click.option("--restart", is_flag=True, help="Discard the existing store and start over (.zarr).")
@click.option(
    "--retry-skipped", is_flag=True, help="Retry files that earlier runs skipped (.zarr)."
)
@click.option(
    "--prune",
    is_flag=True,
    help="Forget files that are no longer among the paths and no longer exist (.zarr).",
)
@click.option(
    "--check",
    type=click.Choice(["time", "hash"]),
    default="time",
    show_default=True,
    help="How to detect changed images: by size and time, or by contents (.zarr). "
    "hash also compares everything in the output with its checksums.",
)
@click.option(
    "--report",
    type=click.Path(),
    metavar="FILE",
    help="Write JSON lines: each file that was skipped, with the reason, and a summary.",
)
@click.option(
    "--labels",
    metavar="folder|FILE",
    help="Add a column of labels: the name of each image's folder, or from a .csv file with the "
    "columns file and label.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Skip a file that takes longer to read, with two workers or more.  [default: 600]",
)
@click.option(
    "--progress",
    type=click.Choice(["plain", "json", "none"]),
    help="How to show progress, on stderr.  [default: a bar on a terminal, else plain: a line "
    "every 30 s]",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only report the number of images to process and, from a sample, estimates of the time "
    "and of the output size.",
)
@click.option(
    "--settings-from",
    type=click.Path(),
    metavar="OLD",
    help="Take the settings of an earlier output; options on the command line override them.",
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
    files_from: str | None,
    output: str,
    workers: int | None,
    device: str,
    engine: str,
    address: str | None,
    on_error: str | None,
    restart: bool,
    retry_skipped: bool,
    prune: bool,
    check: str,
    report: str | None,
    labels: str | None,
    timeout: float | None,
    progress: str | None,
    dry_run: bool,
    settings_from: str | None,
    tile: int | None,
    max_pixels: int,
    max_memory: int,
    truncated: bool,
    **options: Any,
) -> None:
    """Extract features of images.

    A PATH is an image (PNG, JPEG, TIFF, WebP, BMP, .npy, ...), a folder, searched through for
    those, a quoted pattern, an archive (.zip, .tar, .tar.gz), a table with a column of images
    (.parquet, .arrow), or a URL (s3://..., by fsspec). Nothing is learned: an image's features
    depend on that image alone.

    \b
    Examples:
      dtwpt extract photos/ -o features.npz
      dtwpt extract 'scans/**/*.tif' -o features.npz --resize 256 --crop 224 --workers 4
      dtwpt extract new/ -o new.npz --settings-from features.npz
      find . -name '*.jpg' | dtwpt extract --files-from - -o features.npz
      dtwpt extract million/ -o features.zarr
      dtwpt extract million/ -o features.zarr --engine ray --address auto
      dtwpt extract slide.tif -o maps.zarr --tile 2048

    .zarr is a store for large jobs. Jobs are resumable: rerun the same command after any
    interruption. Finished images are not read again, changed ones are recomputed, new ones are
    added. In Python: dtwpt.extract.load("features.zarr").

    .npz is for small jobs. numpy.load("features.npz") has the arrays features (images x features,
    float32), feature_names, files, settings (JSON), skipped and skipped_reasons. It is written only
    once it is complete, as are .npy, .parquet and .csv.

    With --tile the output is a Zarr array of all maps of one image, larger than memory perhaps.

    Exit status: 0 all done; 1 failed; 2 wrong usage; 3 written, but without the files that were
    skipped; 128 + n stopped by signal n. A store keeps finished work, whatever the status.
    """  # noqa: D301
    if tile is not None:
        click.echo(one_line(extract_tiles(ctx)))
        return
    from dtwpt.extract import Limits
    from dtwpt.extract.files import check_output, is_store_name

    is_store = is_store_name(output)
    _check_usage(ctx, is_store)
    if not is_store:
        check_output(output)
    settings = _settings(ctx, options, settings_from)
    settings = replace(settings, limits=Limits(max_pixels, max_memory << 20, truncated))
    if engine == "ray":
        workers = workers or None  # as many as fit into the cluster
    elif workers is None and not is_store:
        workers = 1
    else:
        # Readers are separate processes: a file that crashes one does not end the run.
        workers = workers or max(cores(), 2 if is_store else 1)
    if timeout is not None and workers == 1:
        raise click.UsageError("--timeout needs --workers 2 or more", ctx)
    job = Job(
        paths=inputs_of(ctx),
        output=output,
        settings=settings,
        workers=workers,
        device=device,
        engine=engine,
        address=address,
        on_error=on_error or ("skip" if is_store else "stop"),
        report=report,
        labels=labels,
        timeout=timeout,
        progress=progress,
    )
    if dry_run:
        from dtwpt.cli.estimate import estimate

        click.echo(one_line(estimate(job)))
        return
    if engine == "ray":
        job.watch()
    result: FeatureTable | FeatureStore
    if is_store:
        result = to_store(
            job, restart=restart, retry_skipped=retry_skipped, prune=prune, check=check
        )
    else:
        result = to_table(job)
    if job.paths.left_out:
        note(f"note: {job.paths.told()}")
    tell_skipped(result.skipped, output)
    click.echo(one_line(f"{output}: {job.outcome(result)}"))
    if result.skipped:
        ctx.exit(SOME_SKIPPED)


def _check_usage(ctx: click.Context, is_store: bool) -> None:
    """Refuse options that would have no effect."""
    names = given(ctx)
    if not is_store:
        names -= {"engine"} if ctx.params["engine"] == "local" else set()
        for name in ("restart", "retry_skipped", "prune", "check", "engine", "address"):
            if name in names:
                raise click.UsageError(f"--{name.replace('_', '-')} is for .zarr outputs", ctx)
    if "address" in names and ctx.params["engine"] == "local":
        raise click.UsageError("--address is for --engine ray", ctx)


def _settings(ctx: click.Context, options: dict[str, Any], settings_from: str | None) -> Settings:
    from dtwpt.extract import Settings, load_settings

    if settings_from is None:
        return Settings(**options)
    settings, made_by = load_settings(settings_from)
    changed = {name: options[name] for name in given(ctx) & set(options)}
    if made_by.get("dtwpt") != dtwpt.__version__:
        note(
            f"note: {settings_from} was made by dtwpt {made_by.get('dtwpt')}, this is "
            f"{dtwpt.__version__}"
        )
    return Settings.from_dict({**settings.to_dict(), **changed})
