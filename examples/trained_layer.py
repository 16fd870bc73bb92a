"""The kernels of a trained first layer: how stable each is, predicted and measured.

A 7 x 7 layer of 64 kernels of a network trained on ImageNet (examples/data/README.md) in the
frequency plane. It prints the figures that the page "Reproduction" of the documentation quotes, and
saves them with its picture:

    python examples/trained_layer.py --output docs/images/reproduction

Needs dtwpt[examples]. Nothing is downloaded: the photographs come with scikit-image.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage import data

import dtwpt.plot
from dtwpt.extract import find_images, read_image
from dtwpt.invariance import Layer, characterize, gamma, measure, predict
from dtwpt.invariance.kernels import LIKENESS_LEAST

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
LAYER = Path(__file__).parent / "data" / "open_nsfw_stem.npz"
SIZE = 224
ERRORS = {"rmax_shift": "RMax, shifted", "cmod_shift": "CMod, shifted"}


def photographs(paths: list[str] | None) -> list[NDArray[Any]]:
    """Return images (3, H, W), 0 to 1."""
    if paths is not None:
        return [read_image(file, "channels") for file in find_images(paths)]
    return [np.moveaxis(getattr(data, name)() / 255.0, 2, 0) for name in PHOTOGRAPHS]


def crops(images: list[NDArray[Any]], count: int) -> list[NDArray[Any]]:
    """Return crops spread evenly over the images."""
    places = [
        (image, top, left)
        for image in images
        for top in range(0, image.shape[1] - SIZE + 1, 64)
        for left in range(0, image.shape[2] - SIZE + 1, 64)
    ]
    chosen = np.linspace(0, len(places) - 1, count).round().astype(int)
    out = []
    for index in chosen:
        image, top, left = places[index]
        out.append(image[:, top : top + SIZE, left : left + SIZE])
    return out


def compare(
    title: str, measured: np.ndarray, predicted: np.ndarray, which: NDArray[np.bool_]
) -> list[str]:
    """Return the lines that compare a prediction with a measurement."""
    lines = [
        f"{title} ({which.sum()} kernels):",
        f"{'':20}{'measured':>10}{'predicted':>11}{'ratio':>8}{'r':>8}",
    ]
    for name, label in {"rmax_cmod": "RMax against CMod", **ERRORS}.items():
        m, p = measured[name][which], predicted[name][which]
        r = np.corrcoef(m, p)[0, 1]
        lines.append(
            f"{label:20}{m.mean():10.4f}{p.mean():11.4f}{m.mean() / p.mean():8.2f}{r:8.3f}"
        )
    return [*lines, ""]


def draw(measured: np.ndarray, predicted: np.ndarray, which: NDArray[np.bool_]) -> Figure:
    """Draw both errors in the frequency plane, and prediction against measurement."""
    figure = Figure(figsize=(11.4, 6.6), dpi=82, layout="constrained")
    axes = figure.subplots(2, 3)
    for row, (name, label) in zip(axes, ERRORS.items(), strict=True):
        shown = [table[which] for table in (measured, predicted)]
        top = float(max(table[name].max() for table in shown))
        for axis, table, how in zip(row, shown, ("measured", "predicted"), strict=False):
            dtwpt.plot.frequency_points(
                table, table[name], axis, vmin=0, vmax=top, label="relative squared change"
            )
            axis.set_title(f"{label}, {how}", fontsize=10)
        dtwpt.plot.prediction(shown[1], shown[0], name, row[2])
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output/reproduction"),
        help="folder for the report and the picture (default: %(default)s)",
    )
    parser.add_argument(
        "--layer", type=Path, default=LAYER, help="what Layer.save wrote (default: %(default)s)"
    )
    parser.add_argument("--images", nargs="+", metavar="PATH", help="files or folders of images")
    parser.add_argument(
        "--crops", type=int, default=16, help="number of crops (default: %(default)s)"
    )
    parser.add_argument(
        "--shift", type=float, nargs=2, default=(0, 1), metavar=("DOWN", "RIGHT"),
        help="pixels (default: 0 1)",
    )  # fmt: skip
    options = parser.parse_args()
    layer, shift = Layer.load(options.layer), tuple(options.shift)
    seen = crops(photographs(options.images), options.crops)
    if not seen:
        parser.error(f"images must have at least {SIZE} x {SIZE} pixels")
    energy = np.square(layer.filters).sum((1, 2, 3))
    alive = energy > 1e-6 * energy.max()
    kernels = layer.filters[alive]
    about = characterize(kernels, layer.stride)
    theta = np.stack([about["theta_y"], about["theta_x"]], axis=-1)
    squared = gamma(theta, int(layer.stride or 2)) ** 2
    like = about["gabor_likeness"] >= LIKENESS_LEAST
    gabor = about["gabor"]
    lines = [
        f"{len(alive)} kernels, {(~alive).sum()} of them dead; {like.sum()} of likeness "
        f"{LIKENESS_LEAST:g} at least, {gabor.sum()} of which are Gabor-like.",
        f"{len(seen)} crops of {SIZE} x {SIZE} pixels, moved by ({shift[0]:g}, {shift[1]:g}) "
        "pixels (down, right). r: Pearson correlation over kernels.",
        "",
    ]
    measured = measure(seen, kernels, shift, stride=layer.stride)
    predicted = predict(kernels, shift, spectrum=seen, stride=layer.stride)
    lines += compare("Gabor-like kernels alone, on grey images", measured, predicted, gabor)
    near = measured["rmax_cmod"][gabor]
    lines += [f"r(gamma^2, RMax against CMod) = {np.corrcoef(squared[gabor], near)[0, 1]:.3f}", ""]
    bias = None if layer.bias is None else layer.bias[alive]
    whole = Layer(
        kernels, bias, layer.relu, layer.stride, layer.window, layer.blur, layer.pool_stride
    )
    measured_whole, predicted_whole = (
        measure(seen, whole, shift),
        predict(whole, shift, spectrum=seen),
    )
    lines += compare(
        "The whole layer with bias and ReLU, on colour images",
        measured_whole,
        predicted_whole,
        measured_whole["gabor"],
    )
    options.output.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines).strip() + "\n"
    print(text, end="")
    (options.output / "layer.txt").write_text(text, "utf-8")
    draw(measured, predicted, gabor).savefig(options.output / "layer.png")
    print(f"Saved layer.txt and layer.png in {options.output}.")


if __name__ == "__main__":
    main()
