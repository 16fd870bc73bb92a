"""Tell textures apart from small patches, and count how often a small shift changes the answer.

Patches of scikit-image's photographs of brick, grass and gravel; one linear classifier on each of
several kinds of features; training and test patches come from disjoint parts of the photographs.
For every kind of features the table has

- the accuracy on the test patches;
- the share of test patches whose predicted class changes when the patch is taken one, two or three
  pixels aside, to the right or below: "changed". The classifier is not trained on such pairs.

All figures are means over random splits, with standard errors. Nothing was tuned for any kind of
features. On clean images packets do best; with noise the Gabor filters do, owing to the lowest of
their frequencies, for which packets of depth 2 have one low-pass (try --depth 3).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fft2, ifft2
from skimage import data
from skimage.feature import hog
from skimage.filters import gabor_kernel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from dtwpt.sklearn import PacketFeatures

Images = NDArray[np.float64]

TEXTURES = ("brick", "grass", "gravel")
SHIFTS = (1, 2, 3)
# Cycles per pixel: from as fine as a filter of one octave's bandwidth can be, to three waves across
# a patch of 24 pixels.
GABOR_FREQUENCIES = (0.35, 0.25, 0.125)
GABOR_ORIENTATIONS = 6


def pooled(maps: Images, grid: int) -> Images:
    """Averages of maps (n, H, W, ...) over the cells of a grid, no finer than the maps."""
    cells = [
        cell.mean(axis=(1, 2))
        for rows in np.array_split(maps, min(grid, maps.shape[1]), axis=1)
        for cell in np.array_split(rows, min(grid, maps.shape[2]), axis=2)
    ]
    return np.stack(cells, axis=1).reshape(len(maps), -1)


def hog_features(patches: Images, grid: int) -> Images:
    """Histograms of oriented gradients: cells of 8 x 8 pixels, blocks of 2 x 2 cells."""
    blocks = [
        hog(patch, pixels_per_cell=(8, 8), cells_per_block=(2, 2), feature_vector=False)
        for patch in patches
    ]
    return pooled(np.stack(blocks), grid)


def gabor_features(patches: Images, grid: int) -> Images:
    """Modulus of the responses of a Gabor bank."""
    make_kernel: Callable[..., Any] = gabor_kernel  # it has no types
    kernels = [
        make_kernel(frequency, theta=step * np.pi / GABOR_ORIENTATIONS)
        for frequency in GABOR_FREQUENCIES
        for step in range(GABOR_ORIENTATIONS)
    ]
    half = max(max(kernel.shape) for kernel in kernels) // 2
    padded = np.pad(patches, [(0, 0), (half, half), (half, half)], mode="symmetric")
    spectrum = fft2(padded)
    responses = []
    for kernel in kernels:
        # Rolled so that the kernel's middle is the origin; what wraps around is cut off.
        centred = np.zeros(padded.shape[1:], complex)
        centred[: kernel.shape[0], : kernel.shape[1]] = kernel
        centred = np.roll(centred, [-(side // 2) for side in kernel.shape], axis=(0, 1))
        response = np.abs(ifft2(spectrum * fft2(centred)))
        responses.append(pooled(response[:, half:-half, half:-half], grid))
    return np.concatenate(responses, axis=1)


def normalised_patches(image: Images, corners: NDArray[np.int64], size: int) -> Images:
    """Patches of mean 0 and variance 1, so that brightness and contrast give nothing away."""
    patches = np.stack([image[y : y + size, x : x + size] for y, x in corners])
    patches -= patches.mean(axis=(1, 2), keepdims=True)
    patches /= patches.std(axis=(1, 2), keepdims=True)
    return patches


def split(
    rng: np.random.Generator, size: int, train: int, test: int, noise: float
) -> tuple[Images, dict[tuple[int, int], Images]]:
    """Patches to train on, and test patches by shift; texture by texture.

    Each photograph is cut in two at a random row or column; which side trains is random too.
    """
    offsets = [(0, 0), *((0, d) for d in SHIFTS), *((d, 0) for d in SHIFTS)]
    reach = size + max(SHIFTS)
    training: list[Images] = []
    tests: dict[tuple[int, int], list[Images]] = {offset: [] for offset in offsets}
    for name in TEXTURES:
        image = getattr(data, name)() / 255.0
        # The noise belongs to the photograph, and moves with it: only the shift tells two patches
        # apart.
        image = image + noise * rng.standard_normal(image.shape)
        corners: list[NDArray[np.int64]] = []
        axis = int(rng.integers(2))
        length = image.shape[axis]
        cut = int(rng.integers(length * 2 // 5, length * 3 // 5))
        sides = [(0, cut), (cut, length)]
        for side, count in zip(rng.permutation(sides), (train, test), strict=True):
            place = rng.integers(0, np.array(image.shape) - reach + 1, (count, 2))
            place[:, axis] = rng.integers(side[0], side[1] - reach + 1, count)
            corners.append(place)
        training.append(normalised_patches(image, corners[0], size))
        for offset in offsets:
            tests[offset].append(normalised_patches(image, corners[1] + offset, size))
    return np.concatenate(training), {
        offset: np.concatenate(patches) for offset, patches in tests.items()
    }


def evaluate(
    features: Callable[[Images], Images], training: Images, tests: dict[tuple[int, int], Images]
) -> list[float]:
    """Accuracy, then the share of changed answers for each distance, in percent."""
    classes = np.arange(len(TEXTURES))
    known = np.repeat(classes, len(training) // len(classes))
    truth = np.repeat(classes, len(tests[0, 0]) // len(classes))
    classifier = make_pipeline(
        FunctionTransformer(features), StandardScaler(), LogisticRegression(max_iter=5000)
    ).fit(training, known)
    answers = {offset: classifier.predict(patches) for offset, patches in tests.items()}
    changed = [
        np.mean([answers[offset] != answers[0, 0] for offset in ((0, d), (d, 0))]) for d in SHIFTS
    ]
    return [100 * float(share) for share in (np.mean(answers[0, 0] == truth), *changed)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, meaning in (
        ("patch", 24, "side of a patch, pixels"),
        ("train", 10, "training patches of each texture"),
        ("test", 60, "test patches of each texture"),
        ("splits", 10, "random splits, at least 2"),
        ("seed", 0, "of the random numbers"),
        ("depth", 2, "of the packets"),
        ("pool", 1, "features are averaged over a grid of so many rows and columns of cells"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{meaning} ({default})")
    parser.add_argument(
        "--noise",
        type=float,
        nargs="+",
        default=[0.0, 0.1],
        help="standard deviations of noise on pixels in 0..1, a table for each (0 0.1)",
    )
    parser.add_argument("--output", type=Path, help="write the table here as .csv too")
    options = parser.parse_args()
    started = time.perf_counter()

    kinds: dict[str, Callable[[Images], Images]] = {
        "CMod": PacketFeatures(options.depth, operator="cmod", pool=options.pool).fit_transform,
        "RMax": PacketFeatures(options.depth, operator="rmax", pool=options.pool).fit_transform,
        "Gabor": lambda patches: gabor_features(patches, options.pool),
        "HOG": lambda patches: hog_features(patches, options.pool),
    }
    print(
        f"{', '.join(TEXTURES)}: {options.patch} x {options.patch} patches, {options.train} of "
        f"each to train on, {options.test} to test;\npercent, mean ± standard error over "
        f"{options.splits} splits. Features are averaged over a grid of "
        f"{options.pool} x {options.pool}."
    )
    rows = []
    for noise in options.noise:
        print(f"\nNoise {noise:g}")
        columns = ["accuracy", *(f"changed, {d} px" for d in SHIFTS)]
        print(f"{'':6}{'features':>9}" + "".join(f"{column:>16}" for column in columns))
        scores: dict[str, list[list[float]]] = {name: [] for name in kinds}
        # The same splits whatever the noise.
        for seed in np.random.SeedSequence(options.seed).spawn(options.splits):
            rng = np.random.default_rng(seed)
            training, tests = split(rng, options.patch, options.train, options.test, noise)
            for name, features in kinds.items():
                scores[name].append(evaluate(features, training, tests))
        for name, values in scores.items():
            length = kinds[name](training[:1]).shape[1]
            table = np.array(values)
            errors = table.std(axis=0, ddof=1) / np.sqrt(len(table))
            pairs = list(zip(table.mean(axis=0), errors, strict=True))
            cells = [f"{mean:.1f} ± {error:.1f}" for mean, error in pairs]
            print(f"{name:6}{length:9}" + "".join(f"{cell:>16}" for cell in cells))
            numbers = [f"{number:.2f}" for pair in pairs for number in pair]
            rows.append([f"{noise:g}", name, str(length), *numbers])
    if options.output is not None:
        keys = ["accuracy", *(f"changed_{d}px" for d in SHIFTS)]
        with options.output.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                [
                    "noise",
                    "kind",
                    "features",
                    *(f"{key}{end}" for key in keys for end in ("", "_se")),
                ]
            )
            writer.writerows(rows)
        print(f"\nWritten to {options.output}.")
    print(f"\nDone in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
