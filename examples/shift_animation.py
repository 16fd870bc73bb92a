"""A picture that moves pixel by pixel, and what three kinds of maps make of it, as a GIF.

Needs dtwpt[examples]. ``python examples/shift_animation.py -o shift.gif`` draws the animation of
the README: the output of a strided convolution, its max pooling (RMax) and a complex modulus
(CMod), all of one filter. Nothing is downloaded: the photograph comes with scikit-image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import dtwpt
from dtwpt.colour import LUMA

DEPTH, PACKET = 3, (0, 2, 3)  # sign +1, diagonal waves of about 9 pixels
CROP, PANEL, GAP, TEXT = 224, 168, 8, 40
NAMES = ("picture", "convolution", "RMax", "CMod")


def panels(picture: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the picture and the three maps of one filter."""
    stride = 2 ** (DEPTH - 1)
    convolution = dtwpt.dtcwpt2(picture, DEPTH, stride=stride).real
    maps = [convolution, dtwpt.rmax2(picture, DEPTH), dtwpt.cmod2(picture, DEPTH)]
    return [picture, *(values[PACKET].astype(float) for values in maps)]


def change(now: NDArray[np.float64], start: NDArray[np.float64]) -> float:
    """Return the relative squared change of a map."""
    return float(np.sum((now - start) ** 2) / np.sum(start**2))


def tile(values: NDArray[np.float64], low: float, high: float) -> Image.Image:
    shades = np.clip((values - low) / (high - low), 0, 1)
    colours = colormaps["gray" if low == 0 and len(values) == CROP else "viridis"](shades)
    pixels = Image.fromarray((255 * colours[..., :3]).round().astype(np.uint8))
    how = Image.Resampling.LANCZOS if len(values) > PANEL else Image.Resampling.NEAREST
    return pixels.resize((PANEL, PANEL), how)


def frame(
    now: list[NDArray[np.float64]],
    last: list[NDArray[np.float64]],
    ranges: list[tuple[float, float]],
    moved: int,
) -> Image.Image:
    font, small = (ImageFont.load_default(size) for size in (15, 13))
    size = (len(now) * PANEL + (len(now) + 1) * GAP, PANEL + TEXT + 2 * GAP)
    out = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(out)
    for index, (name, values, before, limits) in enumerate(
        zip(NAMES, now, last, ranges, strict=True)
    ):
        left = GAP + index * (PANEL + GAP)
        out.paste(tile(values, *limits), (left, GAP))
        note = f"moved by {moved} px" if index == 0 else f"last pixel: {change(values, before):.2f}"
        draw.text((left, PANEL + GAP + 4), name, "black", font)
        draw.text((left, PANEL + GAP + 23), note, "#444444", small)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("shift.gif"))
    parser.add_argument("--pixels", type=int, default=8, help="how far (default: %(default)s)")
    options = parser.parse_args()
    colour: NDArray[np.uint8] = data.chelsea()  # type: ignore[no-untyped-call]
    photograph = colour @ np.array(LUMA) / 255
    top, left = 30, 90
    steps = [
        panels(photograph[top : top + CROP, left - moved : left - moved + CROP])
        for moved in range(options.pixels + 1)
    ]
    ends = [np.quantile(np.stack(maps), (0.003, 0.997)) for maps in zip(*steps, strict=True)]
    ranges = [(0.0, 1.0), (-max(abs(ends[1])), max(abs(ends[1])))]
    ranges += [(0.0, float(top)) for _, top in ends[2:]]
    order = [*range(options.pixels + 1), *range(options.pixels - 1, 0, -1)]
    frames = []
    for last, now in zip([1, *order], order, strict=False):
        picture = frame(steps[now], steps[last], ranges, now)
        frames.append(picture.quantize(96, dither=Image.Dither.NONE))
    frames[0].save(
        options.output, save_all=True, append_images=frames[1:], duration=400, loop=0, optimize=True
    )
    print("relative squared change over the last pixel, and since the start")
    for moved in range(1, options.pixels + 1):
        texts = [
            f"{name} {change(now, last):.3f} {change(now, start):.3f}"
            for name, now, last, start in zip(
                NAMES, steps[moved], steps[moved - 1], steps[0], strict=True
            )
        ]
        print(f"{moved} px: {', '.join(texts[1:])}")
    print(options.output)


if __name__ == "__main__":
    main()
