"""Features of real photographs, and three pictures: the filters, their maps, a shift of one pixel.

Run ``make demo``, or ``python examples/demo.py`` where dtwpt[examples] is installed.
Nothing is downloaded: the photographs come with scikit-image.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from skimage.color import rgb2gray

import dtwpt
import dtwpt.plot

# Those that come in scikit-image's wheel and show the world as a camera does.
PHOTOGRAPHS = ("astronaut", "camera", "coffee", "rocket", "brick", "grass", "gravel", "chelsea")
CROP = 256


def photograph(name: str) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = getattr(data, name)()
    return pixels


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(rgb2gray(pixels) if pixels.ndim == 3 else pixels / 255.0, np.float64)


def middle(image: NDArray[np.float64], shift: int = 1) -> NDArray[np.float64]:
    """Cut out the middle, wider than a crop: there are two crops so many pixels apart in it."""
    top, left = ((length - CROP - shift) // 2 for length in image.shape)
    return image[top : top + CROP, left : left + CROP + shift]


def extract_features(photographs: Path, output: Path) -> None:
    """Run the command, as one would type it."""
    arguments = ["extract", str(photographs), "-o", str(output)]
    print(f"$ dtwpt {shlex.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "dtwpt.cli", *arguments], check=True)


def shift_changes(image: NDArray[np.float64], depth: int, shift: int) -> dict[str, float]:
    """Relative change of each operator's maps when the picture moves by so many pixels."""
    atoms = dtwpt.PacketBank(depth).atoms()
    one_sided = ~(atoms["boundary"] | atoms["lowpass"])
    before, after = image[:, shift:], image[:, :-shift]
    changes = {}
    for name, operator in (("CMod", dtwpt.cmod2), ("RMax", dtwpt.rmax2)):
        a, b = operator(before, depth), operator(after, depth)
        change = np.sum((a - b) ** 2, axis=(-2, -1)) / np.sum(a**2, axis=(-2, -1))
        changes[name] = float(np.mean(change.ravel()[one_sided]))
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--photographs",
        nargs="+",
        choices=PHOTOGRAPHS,
        default=PHOTOGRAPHS,
        metavar="NAME",
        help=f"some of: {', '.join(PHOTOGRAPHS)} (default: all)",
    )
    options = parser.parse_args()
    started = time.perf_counter()

    folder: Path = options.output / "photographs"
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for name in options.photographs:
        pixels = photograph(name)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        images[name] = grey(pixels)
    print(f"Saved {len(images)} photographs of scikit-image in {folder}.\n")

    features = options.output / "features.npz"
    extract_features(folder, features)
    with np.load(features) as table:
        shape, names = table["features"].shape, table["feature_names"]
        print(f"{shape[0]} photographs x {shape[1]} features, such as {names[1]}.\n")

    print(
        f"Relative change of the maps when a photograph, {CROP} x {CROP} pixels of it, moves to the"
    )
    print(f"right (mean over one-sided packets and {len(images)} photographs):")
    for depth in (2, 3):
        for shift in (1, 2, 4):
            changes = [
                shift_changes(middle(image, shift), depth, shift) for image in images.values()
            ]
            cmod, rmax = (np.mean([change[name] for change in changes]) for name in changes[0])
            print(
                f"  depth {depth}, {shift} px: CMod {cmod:.3f}, RMax {rmax:.3f}: "
                f"{rmax / cmod:.1f} times as much"
            )

    seen, moved = options.photographs[0], options.photographs[-1]
    print("\nPictures:")
    for name, figure, meaning in (
        (
            "filters.png",
            dtwpt.plot.filters(dtwpt.PacketBank(2)),
            "the filters in space and in frequency",
        ),
        (
            "maps.png",
            dtwpt.plot.maps(images[seen]),
            f"what they see in the photograph {seen}",
        ),
        (
            "shift.png",
            dtwpt.plot.shift_change(middle(images[moved]), shift=(0, 1)),
            f"what moving the photograph {moved} by one pixel does to CMod and to RMax",
        ),
    ):
        figure.savefig(options.output / name)
        print(f"  {options.output / name}: {meaning}")
    print(f"\nDone in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
