"""Compare cures for shift sensitivity, each in the same small ResNet.

A network as it is (strided convolutions and max pooling), and with each pooling that
replace_downsampling knows, where its authors put it: the polyphase ones wherever the network
subsamples, the others everywhere but in the first convolution. Plain average pooling and CoConv,
dilated convolutions side by side, are controls. Each of them with the network's own first layer
and with a wavelet stem (CMod). All padding is circular, so that rolls are exact where they can be.

Parts:

a) untrained networks in float64: by how much logits change, under each kind of shift, with circular
   and with zero padding;
b) trained on digits, and on patches of photographs: accuracy, and flips under four kinds of shift;
c) trained on digits that are pasted on textures, and tested at a grid of places: no border shows;
d) with the amplitudes of other images (recombination) in training, on photographs.

All results go to one JSON file. An interrupted run resumes: a result that is
in the file is not computed again. Tables and figures are made from it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from skimage import data
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models
from train_classifier import patches_of_photographs, turned

from dtwpt.augment import recombine
from dtwpt.metrics import (
    compare,
    flip_rate,
    random_shifts,
    shifted_crops,
    shifted_outputs,
)
from dtwpt.nn import (
    MixedPolyphasePool2d,
    anneal,
    replace_downsampling,
    replace_stem,
    tips_loss,
)
from dtwpt.nn.downsampling_pools import POOLS
from dtwpt.scenes import compose

SIZE, REACH = 32, 2
PADDINGS = ("circular", "zero")
KINDS = {"crop": "crop", "roll": "roll", "fill": "zero", "half": "fourier"}
# The network as it is, every pooling that the library knows, and another control.
METHODS = ("none", *POOLS, "coconv")
STEMS = ("own", "cmod")
BOTH = ("digits", "photographs")
TEXTURES = ("brick", "grass", "gravel")
# Where digits are pasted: rows and columns from the middle, pixels.
GRID = range(-6, 7)
# Weight of the losses of TIPS, as published.
ALPHA = 0.35


# Networks -----------------------------------------------------------------------------------------


class SmallResNet(models.ResNet):  # type: ignore[misc]
    """Torchvision's ResNet with one block in each of three stages: 16, 32 and 64 channels."""

    def __init__(self, classes: int) -> None:
        super().__init__(models.resnet.BasicBlock, [1, 1, 1, 1], classes)
        self.inplanes = 16
        self.conv1 = nn.Conv2d(1, 16, 5, 2, 2, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(16)
        for name, planes, stride in (("layer1", 16, 1), ("layer2", 32, 2), ("layer3", 64, 2)):
            layer = self._make_layer(models.resnet.BasicBlock, planes, 1, stride)
            setattr(self, name, layer)
        self.layer4 = nn.Identity()
        self.fc = nn.Linear(64, classes)


class CoConv(nn.Module):
    """A 3 x 3 convolution of which half the channels are dilated (Duta et al. 2021)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        wide = conv.out_channels // 2
        self.convs = nn.ModuleList()
        for count, d in ((conv.out_channels - wide, 1), (wide, 2)):
            part = nn.Conv2d(conv.in_channels, count, 3, conv.stride[0], d, dilation=d, bias=False)
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            self.convs.append(part)

    def forward(self, x: Tensor) -> Tensor:
        """Return what both kernels see."""
        return torch.cat([conv(x) for conv in self.convs], 1)


def make_circular(model: nn.Module) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
        elif isinstance(module, nn.MaxPool2d) and module.padding:
            padding: Any = module.padding
            pool = nn.MaxPool2d(module.kernel_size, module.stride)
            model.set_submodule(name, nn.Sequential(nn.CircularPad2d(padding), pool))
    return model


def network(method: str, stem: str, classes: int, padding: str = "circular") -> nn.Module:
    """Return an untrained network, by torch's random numbers."""
    model: nn.Module = SmallResNet(classes)
    if method == "coconv":
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                model.set_submodule(name, CoConv(module))
    elif method != "none":
        how = "circular" if padding == "circular" else "keep"
        first = "cmod" if stem == "cmod" else None  # None: as published
        return replace_downsampling(model, method, stem=first, padding=how)[0]
    if stem == "cmod":
        mode = "periodic" if padding == "circular" else "zero"
        model = replace_stem(model, "cmod", mode=mode)
    return make_circular(model) if padding == "circular" else model


def loss_of(model: nn.Module, outputs: Tensor, labels: Tensor, done: float) -> Tensor:
    """Return the loss of a batch, after the share of the epochs that are done."""
    loss = functional.cross_entropy(outputs, labels)
    if any(isinstance(module, MixedPolyphasePool2d) for module in model.modules()):
        loss = (1 - ALPHA) * loss + tips_loss(model, ALPHA, undo=done >= 0.4)
    return loss


# Images -------------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Training images with room for shifts on each side, and test images likewise."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int
    turn: bool


def as_canvas(digit: Tensor, side: int) -> Tensor:
    """Digits (N, 1, 8, 8) enlarged, in the middle of an empty square."""
    ink = functional.interpolate(digit, size=20, mode="bicubic", align_corners=False).clamp(0, 1)
    room = side - 20
    return functional.pad(ink, (room // 2, room - room // 2, room // 2, room - room // 2))


def split_digits() -> tuple[Tensor, Tensor, int]:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    # Those who wrote the last third are for the test.
    return x, torch.tensor(labels), len(x) * 2 // 3


def digits(seed: int, options: Namespace) -> Data:
    x, y, first = split_digits()
    x = (as_canvas(x, SIZE + 2 * REACH) - 0.3) / 0.4
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(x) - first, generator=generator)[: options.test] + first
    return Data(x[:first], y[:first], x[chosen], y[chosen], 10, False)


def photographs(seed: int, options: Namespace) -> Data:
    per_class = max(options.test // 11, 1)
    given = Namespace(size=SIZE, train=options.train // 11, test=per_class, sigma=2.0, noise=0.0)
    task = patches_of_photographs(given, seed)
    train: Any = task.train
    test: Any = task.test
    middle = slice(2, -2)  # less room than there
    return Data(
        train.images[..., middle, middle],
        train.labels,
        test.tensors[0][..., middle, middle],
        test.tensors[1],
        task.classes,
        True,
    )


def scenes(seed: int, options: Namespace) -> Data:
    """Digits pasted on textures, in the middle but for a shift of up to REACH pixels."""
    x, y, first = split_digits()
    rng = np.random.default_rng(seed)
    shifts = rng.integers(-REACH, REACH + 1, size=(first, 2))
    train = [pasted(x[k, 0], rng, 0, shifts[k]) for k in range(first)]
    chosen = rng.permutation(len(x) - first)[: options.test // 4] + first
    test = [cutout_and_ground(x[k, 0], rng, 1) for k in chosen]
    places = [
        [compose(*pair, place(shift), 0.4) for pair in test]
        for shift in ((down, right) for down in GRID for right in GRID if 0 in (down, right))
    ]
    return Data(
        torch.tensor(np.stack(train), dtype=torch.float32)[:, None],
        y[:first],
        torch.tensor(np.stack([np.stack(one) for one in places]), dtype=torch.float32)[:, :, None],
        y[chosen],
        10,
        False,
    )


def place(shift: Any) -> tuple[float, float]:
    return 0.5 + shift[0] / SIZE, 0.5 + shift[1] / SIZE


def cutout_and_ground(
    digit: Tensor, rng: np.random.Generator, part: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a white digit as a cut-out, and a texture from the upper or the lower half."""
    image = getattr(data, TEXTURES[rng.integers(len(TEXTURES))])() / 255.0
    half = np.array_split(image, 2)[part]
    top, left = (int(rng.integers(n - SIZE + 1)) for n in half.shape)
    ground = half[top : top + SIZE, left : left + SIZE]
    ground = 0.3 * (ground - ground.mean()) / (ground.std() + 1e-3)
    ink = digit.numpy().astype(np.float64)
    return np.stack([np.full_like(ink, 2.0), ink], -1), ground


def pasted(digit: Tensor, rng: np.random.Generator, part: int, shift: Any) -> np.ndarray:
    return compose(*cutout_and_ground(digit, rng, part), place(shift), 0.4)


DATASETS: dict[str, Callable[[int, Namespace], Data]] = {
    "digits": digits,
    "photographs": photographs,
    "scenes": scenes,
}


# Training -----------------------------------------------------------------------------------------


def train(model: nn.Module, given: Data, options: Namespace, seed: int, mixed: bool) -> float:
    """Train, and return the seconds it took."""
    torch.manual_seed(seed)
    model.to(options.device).train()
    optimiser = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3
    )
    count = len(given.train)
    steps = options.epochs * (count // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 0.1, steps, pct_start=0.2, cycle_momentum=False
    )
    began = time.perf_counter()
    for epoch in range(options.epochs):
        anneal(model, 0.1 ** (epoch / options.epochs))  # of learned polyphase poolings
        order: Any = torch.randperm(count)[: count - count % options.batch]
        for chosen in order.split(options.batch):
            x, y = given.train[chosen], given.train_labels[chosen].to(options.device)
            if x.shape[-1] > SIZE:
                x = shifted_crops(x, SIZE, random_shifts(1, len(x), REACH))[0]
            if given.turn:
                x = torch.stack([turned(image) for image in x])
            x = x.to(options.device)
            if mixed:
                # In addition, as in the article: phases and labels of one, amplitudes of another.
                x, y = torch.cat([x, recombine(x, x.roll(1, 0))]), y.repeat(2)
            loss: Any = loss_of(model, model(x), y, epoch / options.epochs)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    return time.perf_counter() - began


# Parts --------------------------------------------------------------------------------------------


def exactness(method: str, stem: str, padding: str, count: int = 22) -> dict[str, float]:
    """Change of logits in relation to how they differ between images, both root mean squares."""
    torch.manual_seed(0)
    model = network(method, stem, 10, padding).double().eval()
    given = photographs(0, Namespace(train=11, test=count))
    images = given.test.double()
    middle = shifted_crops(images, SIZE, [0])[0]
    rows = {}
    for kind, by in KINDS.items():
        half = kind == "half"
        shifts = random_shifts(4, len(images), REACH, generator=torch.Generator().manual_seed(1))
        moves = torch.cat([torch.zeros_like(shifts[:1]), shifts])
        moves = (moves.clamp(max=REACH - 1) + 0.5) * (moves != 0) if half else moves
        crop = kind == "crop"
        outputs = shifted_outputs(
            model, images if crop else middle, SIZE if crop else None, moves, by=by
        )
        spread = (outputs[0] - outputs[0].mean(0)).square().sum(1).mean()
        change = (outputs[1:] - outputs[0]).square().sum(2).mean()
        rows[kind] = float((change / spread).sqrt())
    return rows


def trained(
    dataset: str, method: str, stem: str, seed: int, mixed: bool, options: Namespace
) -> dict[str, Any]:
    given = dataset_of(dataset, seed, options)
    torch.manual_seed(seed)
    model = network(method, stem, given.classes)
    seconds = train(model, given, options, seed, mixed)
    row: dict[str, Any] = {"training_seconds": seconds}
    if dataset == "scenes":
        return row | over_places(model, given, options)
    table: Any = compare(
        {method: model},
        given.test.to(options.device),
        given.test_labels.to(options.device),
        REACH,
        draws=3,
        repeats=3,
    )
    found = table.to_dict("records")[0] if hasattr(table, "to_dict") else table[0]
    return row | {name: value for name, value in found.items() if name != "model"}


def over_places(model: nn.Module, given: Data, options: Namespace) -> dict[str, Any]:
    shifts = [(down, right) for down in GRID for right in GRID if 0 in (down, right)]
    with torch.no_grad():
        outputs = torch.stack([model(x.to(options.device)).cpu() for x in given.test])
    predicted = outputs.argmax(2)
    right = (predicted == given.test_labels).double()
    lines = [[k for k, shift in enumerate(shifts) if shift[axis] == 0] for axis in (0, 1)]
    return {
        "accuracy": float(right[shifts.index((0, 0))].mean()),
        "worst_place": float(right.bool().all(0).double().mean()),
        "flips_place": float(np.mean([float(flip_rate(predicted[line])) for line in lines])),
        "places": {f"{a},{b}": float(r.mean()) for (a, b), r in zip(shifts, right, strict=True)},
    }


CACHE: dict[Any, Data] = {}


def dataset_of(name: str, seed: int, options: Namespace) -> Data:
    if (name, seed) not in CACHE:
        CACHE.clear()
        CACHE[name, seed] = DATASETS[name](seed, options)
    return CACHE[name, seed]


Job = tuple[str, Callable[[], dict[str, Any]]]


def jobs(options: Namespace) -> Iterator[Job]:
    """Yield each result's name and how to compute it, the ones first that matter most."""
    alone = [(method, "own") for method in options.methods if "own" in options.stems]
    with_stem = [(method, "cmod") for method in options.methods if "cmod" in options.stems]
    single = [pair for pair in with_stem if pair[0] == "none"]
    mixed = [pair for pair in (*alone, *single) if pair[0] in ("none", "blur")]
    for padding in PADDINGS if "a" in options.parts else ():
        for method, stem in (*alone, *single):
            yield (
                f"a/{padding}/{method}/{stem}",
                partial(exactness, method, stem, padding),
            )
    both = tuple(options.datasets)
    yield from trainings("b", both, [*alone, *single], options)
    if "photographs" in both:
        yield from trainings("d", ("photographs",), mixed, options)
    yield from trainings("c", ("scenes",), [*alone, *single], options)
    yield from trainings("b", both, with_stem, options)


def trainings(
    part: str, datasets: tuple[str, ...], pairs: list[tuple[str, str]], options: Namespace
) -> Iterator[Job]:
    if part in options.parts:
        for seed, dataset, (method, stem) in product(options.seeds, datasets, pairs):
            compute = partial(trained, dataset, method, stem, seed, part == "d", options)
            yield f"{part}/{dataset}/{method}/{stem}/{seed}", compute


def save(path: Path, results: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(unfinished, path)


def run(options: Namespace) -> dict[str, Any]:
    settings = {name: getattr(options, name) for name in ("epochs", "train", "test", "batch")}
    results: dict[str, Any] = {"settings": settings}
    if options.json.exists():
        results = json.loads(options.json.read_text())
        if results["settings"] != settings:
            raise SystemExit(
                f"{options.json} was made with {results['settings']}, not {settings}: "
                "give the same, or another --json"
            )
    began = time.perf_counter()
    for name, compute in [] if options.report else jobs(options):
        if name in results:
            continue
        results[name] = compute()
        save(options.json, results)
        shown = {
            key: round(value, 4)
            for key, value in results[name].items()
            if isinstance(value, float) and key in ("accuracy", "flips_roll", *KINDS)
        }
        print(f"{time.perf_counter() - began:6.0f} s  {name}  {shown}", flush=True)
    return results


# Report -------------------------------------------------------------------------------------------


def label(method: str, stem: str) -> str:
    return method if stem == "own" else "cmod" if method == "none" else f"cmod + {method}"


def gathered(results: dict[str, Any], part: str, dataset: str) -> dict[str, list[dict[str, Any]]]:
    """Return the results of all seeds, by method."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, row in results.items():
        if name.startswith(f"{part}/{dataset}/"):
            rows.setdefault(label(*name.split("/")[2:4]), []).append(row)
    return rows


def cell(values: list[float], scale: float = 100, digits: int = 1) -> str:
    given = scale * np.array(values)
    spread = f" ± {given.std(ddof=1):.{digits}f}" if len(given) > 1 else ""
    return f"{given.mean():.{digits}f}{spread}"


def table_of(
    rows: dict[str, list[dict[str, Any]]], columns: Mapping[str, tuple[str, float, int]]
) -> str:
    """Return means over seeds, and standard deviations."""
    lines = [["", *columns]]
    for name, runs in rows.items():
        cells = [
            cell([run[key] for run in runs], scale, digits)
            for key, scale, digits in columns.values()
        ]
        lines.append([f"{name} ({len(runs)})", *cells])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def report(results: dict[str, Any]) -> str:
    lines = [f"settings: {results['settings']}; in brackets: seeds; ± standard deviation over them"]
    for padding in PADDINGS:
        rows = {
            label(*name.split("/")[2:]): [row]
            for name, row in results.items()
            if name.startswith(f"a/{padding}/")
        }
        if rows:
            lines += ["", f"a) untrained, {padding} padding: change of logits / spread of logits"]
            text = [f"{'':12}" + "".join(f"{kind:>12}" for kind in KINDS)]
            for name, (row,) in rows.items():
                text.append(f"{name:12}" + "".join(f"{row[kind]:12.1e}" for kind in KINDS))
            lines += text
    flips = {f"flips {kind}": (f"flips_{kind}", 100, 1) for kind in KINDS}
    worst = {f"worst {kind}": (f"worst_{kind}", 100, 1) for kind in KINDS}
    cost = {"Mmac": ("macs", 1, 2), "parameters": ("parameters", 1, 0)}
    for dataset in BOTH:
        rows = gathered(results, "b", dataset)
        if rows:
            lines += ["", f"b) {dataset}: accuracy and flips, percent"]
            lines.append(table_of(rows, {"accuracy": ("accuracy", 100, 1), **flips}))
            lines += ["", f"b) {dataset}: right at all of three random shifts, percent; cost"]
            lines.append(table_of(rows, {**worst, **cost}))
    rows = gathered(results, "c", "scenes")
    if rows:
        lines += [
            "",
            "c) digits on textures, percent: in the middle; right at all 25 places; flips",
        ]
        columns = {
            "middle": ("accuracy", 100, 1),
            "all places": ("worst_place", 100, 1),
            "flips, 1 px": ("flips_place", 100, 1),
        }
        lines.append(table_of(rows, columns))
    mixed = gathered(results, "d", "photographs")
    if mixed:
        plain = gathered(results, "b", "photographs")
        both = {}
        for name, runs in mixed.items():
            both[name] = plain.get(name, [])
            both[f"{name}, recombined"] = runs
        both = {name: runs for name, runs in both.items() if runs}
        lines += ["", "d) photographs: without and with recombination in training"]
        lines.append(table_of(both, {"accuracy": ("accuracy", 100, 1), **flips}))
    return "\n".join(lines)


def draw(results: dict[str, Any], folder: Path) -> None:
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    for dataset in BOTH:
        rows = gathered(results, "b", dataset)
        if not rows:
            continue
        figure = Figure(figsize=(9, 0.3 * len(rows) + 1.4), layout="constrained")
        axes = figure.subplots(1, 5, sharey=True)
        shown = {"accuracy": "accuracy"} | {f"flips_{kind}": f"flips, {kind}" for kind in KINDS}
        for axis, (key, title) in zip(axes, shown.items(), strict=True):
            for height, runs in enumerate(rows.values()):
                values = 100 * np.array([run[key] for run in runs])
                axis.plot(values, np.full(len(values), height), ".", color="0.6")
                axis.plot(values.mean(), height, "o", color="C0" if key == "accuracy" else "C3")
            axis.set_title(title, fontsize=10)
            axis.set_xlabel("%")
            axis.grid(axis="both", alpha=0.3)
            if key != "accuracy":
                axis.set_xlim(left=min(-0.3, axis.get_xlim()[0]))
        axes[0].set_yticks(range(len(rows)), list(rows))
        axes[0].invert_yaxis()
        figure.savefig(folder / f"cures-{dataset}.png", dpi=110)
    rows = gathered(results, "c", "scenes")
    if rows:
        figure = Figure(figsize=(8, 4), layout="constrained")
        axis = figure.subplots()
        for k, (name, runs) in enumerate(rows.items()):
            means = [np.mean([100 * run["places"][f"0,{right}"] for run in runs]) for right in GRID]
            axis.plot(list(GRID), means, color=f"C{k % 10}", ls="-" if k < 10 else "--", label=name)
        axis.axvspan(-REACH, REACH, color="0.93")
        axis.set_xlabel("object from the middle, pixels to the right (grey: places in training)")
        axis.set_ylabel("accuracy, %")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
        figure.savefig(folder / "cures-places.png", dpi=110)


def arguments() -> Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=tuple("abcd"), default=list("abcd"))
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    add("--stems", nargs="+", choices=STEMS, default=list(STEMS))
    add("--datasets", nargs="+", choices=BOTH, default=list(BOTH), help="of part b")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, default=8)
    add("--train", type=int, default=3300, help="training patches of photographs (3300)")
    add("--test", type=int, default=550, help="test images (550)")
    add("--batch", type=int, default=64)
    add("--device", default="cpu")
    add("--json", type=Path, default=Path("cures.json"), help="results, and where to resume")
    add("--figures", type=Path, metavar="DIR")
    add("--report", action="store_true", help="compute nothing: print what --json holds")
    add("--reduced", action="store_true", help="fewer images and epochs: half an hour on a core")
    add("--quick", action="store_true", help="a trial that learns little")
    options = parser.parse_args()
    if options.reduced:
        options.epochs, options.train, options.test, options.batch = 3, 1100, 165, 32
    if options.quick:
        options.epochs, options.train, options.test, options.seeds = 1, 128, 44, [0]
    return options


def main() -> None:
    options = arguments()
    results = run(options)
    print(report(results))
    if options.figures:
        draw(results, options.figures)


if __name__ == "__main__":
    main()
