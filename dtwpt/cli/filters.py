"""``dtwpt filters``."""

from __future__ import annotations

import os

import click

from dtwpt.cli.options import depth_option, picture_options, wavelet_option
from dtwpt.cli.terminal import need_matplotlib, one_line


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="The picture to write; its suffix (.png, .pdf, .svg, ...) is its format.",
)
@depth_option
@wavelet_option
@picture_options(125)
def filters(
    output: str,
    depth: int,
    wavelet: str,
    dpi: int,
    size: tuple[float, ...] | None,
    no_title: bool,
) -> None:
    """Draw the filters of a packet bank.

    \b
    Examples:
      dtwpt filters -o filters.png
      dtwpt filters -o filters.pdf --depth 3 --wavelet qshift_d
      dtwpt filters -o column.pdf --size 3.4 --no-title
    """  # noqa: D301
    from dtwpt.extract.atomic import check_writable, replacing

    need_matplotlib()
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
    from dtwpt.plot.atoms import SIZE
    from dtwpt.plot.canvas import as_figure

    width, height = SIZE if size is None else (*size, size[0] * SIZE[1] / SIZE[0])[:2]
    figure = as_figure(None, (width, height))
    dtwpt.plot.filters(dtwpt.PacketBank(depth, wavelet), figure, title=not no_title)
    with replacing(output) as file:
        figure.savefig(file, format=suffix, dpi=dpi)
    click.echo(one_line(output))
