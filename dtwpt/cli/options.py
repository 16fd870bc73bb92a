"""Option types and options shared by several commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import dtwpt

if TYPE_CHECKING:
    from dtwpt.extract.inputs import Inputs


class Size(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``HxW`` or one number."""

    name = "size"

    def __init__(self, words: tuple[str, ...] = ()) -> None:
        self.words = words

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder for the help."""
        return "|".join((*self.words, "N", "RxC" if self.words else "HxW"))

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | int | tuple[int, int]:
        """Return one of the words, a number or a pair."""
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


class Pool(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Statistics and a grid, separated by commas, or ``none``."""

    name = "pool"
    _STATISTICS = ("mean", "std", "max")

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder for the help."""
        return "none|[mean][,std][,max][,N|,RxC]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return one word or grid, or a tuple of them."""
        if not isinstance(value, str) or value == "none":
            return value
        part = Size(self._STATISTICS)
        parts = tuple(part.convert(each.strip(), param, ctx) for each in value.split(","))
        if len(set(parts)) < len(parts) or sum(not isinstance(each, str) for each in parts) > 1:
            self.fail(f"{value!r} names a statistic twice, or more than one grid", param, ctx)
        return parts[0] if len(parts) == 1 else parts


class Depths(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """One depth, or several separated by commas."""

    name = "depth"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder for the help."""
        return "J[,J...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, ...]:
        """Return the depth, or the tuple of them."""
        if not isinstance(value, str):
            result: int | tuple[int, ...] = value
            return result
        one: Any = click.IntRange(1, 8)
        depths = tuple(one.convert(part.strip(), param, ctx) for part in value.split(","))
        if len(set(depths)) < len(depths):
            self.fail(f"{value!r} names a depth twice", param, ctx)
        return depths if len(depths) > 1 else depths[0]


class Inches(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``W`` or ``WxH`` in inches."""

    name = "inches"
    _LARGEST = 100.0

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder for the help."""
        return "W|WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the width alone, or width and height."""
        if not isinstance(value, str):
            result: tuple[float, ...] = value
            return result
        try:
            sides = tuple(float(part) for part in value.lower().split("x"))
        except ValueError:
            sides = ()
        if len(sides) not in (1, 2):
            self.fail(f"{value!r} is not a width such as 7, or two sides such as 7x3", param, ctx)
        if not all(1 <= side <= self._LARGEST for side in sides):  # NaN neither
            self.fail(f"{value!r}: must be from 1 to {self._LARGEST:g} inches", param, ctx)
        return sides


class Shift(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``DY,DX`` in pixels."""

    name = "shift"
    # The grid of the prediction grows with the shift.
    _FARTHEST = 64

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Return the placeholder for the help."""
        return "DY,DX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """Return the shift."""
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
            self.fail(f"{value!r}: the shift must not be zero", param, ctx)
        return down + 0.0, right + 0.0  # no -0


class Window(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Side of a pooling window, odd."""

    name = "window"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the side."""
        try:
            side = int(value)
        except ValueError:
            side = 0
        if side % 2 == 0 or not 3 <= side <= 9:
            self.fail(f"{value!r} is not 3, 5, 7 or 9", param, ctx)
        return side


depth_option = click.option(
    "--depth", type=click.IntRange(1, 8), default=2, show_default=True, help="Number of stages."
)
wavelet_option = click.option(
    "--wavelet", type=click.Choice(dtwpt.wavelets()), default="qshift_b", show_default=True
)


files_from_option = click.option(
    "--files-from",
    type=click.Path(),
    metavar="FILE|-",
    help="Read more paths from a file, or from standard input: one a line, or separated by zero "
    "bytes. They are not patterns; a missing one counts as an unusable file.",
)


def picture_options(dpi: int) -> Callable[[Any], Any]:
    """Return a decorator that adds how pictures are drawn; ``dpi`` is the default."""

    def add(command: Any) -> Any:
        for option in (
            click.option("--no-title", is_flag=True, help="Leave out headings and captions."),
            click.option(
                "--size",
                type=Inches(),
                help="Width of a picture in inches, or width and height, such as 3.4 or 7x3.",
            ),
            click.option(
                "--dpi",
                type=click.IntRange(20, 1200),
                default=dpi,
                show_default=True,
                help="Pixels in an inch.",
            ),
        ):
            command = option(command)
        return command

    return add


def inputs_of(ctx: click.Context) -> Inputs:
    """Return the paths of a command, and those of its list."""
    from dtwpt.extract.inputs import FileName, Inputs

    paths: list[str] = list(ctx.params["paths"])
    listed = ctx.params["files_from"]
    if listed is not None:
        with click.open_file(listed, "rb") as file:
            content = file.read()
        lines = content.split(b"\0") if b"\0" in content else content.splitlines()
        paths += [FileName(os.fsdecode(line)) for line in lines if line]
    if not paths:
        raise click.UsageError("no PATH, and none from --files-from", ctx)
    return Inputs(paths)


def page_options(command: Any) -> Any:
    """Add the options that choose a part of a file."""
    for option in (
        click.option(
            "--channel",
            type=click.IntRange(0),
            help="Read this sample of the pixels, from 0, as a grey image.",
        ),
        click.option(
            "--level",
            type=click.IntRange(0),
            default=0,
            show_default=True,
            help="Reduced version of an image (TIFF, OME-Zarr); 0: the image itself.",
        ),
        click.option(
            "--page",
            type=click.IntRange(0),
            help="Page of a TIFF, or frame of an animation, from 0.  [default: the picture, "
            "not a thumbnail]",
        ),
    ):
        command = option(command)
    return command


def limit_options(command: Any) -> Any:
    """Add the options that limit the reading of images."""
    for option in (
        click.option(
            "--truncated",
            is_flag=True,
            help="Accept truncated images, such as a JPEG without its end: missing pixels are "
            "grey or black.",
        ),
        click.option(
            "--max-memory",
            type=click.IntRange(1),
            metavar="MIB",
            default=1536,
            show_default=True,
            help="Refuse an image that would need more memory to read.",
        ),
        click.option(
            "--max-pixels",
            type=click.IntRange(1),
            default=178_956_970,
            show_default=True,
            help="Refuse an image with more pixels.",
        ),
    ):
        command = option(command)
    return command


def on_error_option(default: str) -> Callable[[Any], Any]:
    """Return the option for unusable files; ``default`` is for the help."""
    return click.option(
        "--on-error",
        type=click.Choice(["stop", "skip"]),
        help=f"How to treat an unusable file. [default: {default}]",
    )


def given(ctx: click.Context) -> set[str]:
    """Return the names of the options that differ from their defaults."""
    return {
        name for name in ctx.params if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT
    }
