"""Train small ResNets that differ in their first layer alone, and shift their images.

The stems, all of the same output shape:

- conv: convolution, batch normalisation, ReLU and max pooling, as ResNets have them;
- blur: the same with MaxBlurPool2d (Zhang 2019) for pooling;
- rmax, cmod: wavelet packets in some of the channels, with max pooling or with a modulus;
- paper-rmax, paper-cmod: the same with the papers' filters, zero padding and colour mix; of a
  network with 64 channels in its first layer exactly the papers' twin of ResNets;
- antialias: no training of its own; the first layer of the trained conv network averaged over
  small shifts. Fitted: what follows is corrected by least squares on training images, no labels.
  All: the later strided layers are averaged, too.

Printed for each: accuracy, the share of test images whose predicted class changes when the image
moves by 1 to 4 pixels, what is learned and computed, and the time of a training step; for wavelet
channels the least Gabor-likeness before and after training; and for each seed the differences from
conv.

Without --data the images come with scikit-learn and scikit-image, and training takes minutes on a
CPU: "photographs", from which of 11 photographs is this patch; or "digits". Training and test
patches come from different bands of the photographs, and no pixel is made up: a shifted test image
is another crop of a larger one. With --data FOLDER the images are those of FOLDER/train/CLASS and
FOLDER/val/CLASS, as in ImageNet; see imagenet.md. Run it with torchrun for several processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data as photographs
from sklearn.datasets import load_digits
from sklearn.decomposition import FastICA
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset, TensorDataset
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

from dtwpt.colour import LUMA
from dtwpt.invariance import characterize
from dtwpt.metrics import flip_rate, shifted_outputs
from dtwpt.nn import (
    MaxBlurPool2d,
    WaveletStem,
    antialias_stem,
    replace_stem,
    stem_cost,
)

SHIFTS = (1, 2, 3, 4)
# Room around a test image, so that what a shift brings into view is real.
REACH = max(SHIFTS)
PHOTOGRAPHS = (
    "astronaut",
    "brick",
    "camera",
    "chelsea",
    "coffee",
    "coins",
    "grass",
    "gravel",
    "hubble_deep_field",
    "immunohistochemistry",
    "stereo_motorcycle",
)
STEMS = ("conv", "blur", "rmax", "cmod", "paper-rmax", "paper-cmod")
# Ways of antialias_stem: whether it is given images, and the other arguments.
ANTIALIASED: dict[str, tuple[bool, dict[str, Any]]] = {
    "antialias": (False, {}),
    "antialias, norms": (True, {"correction": "norms"}),
    "antialias, fitted": (True, {}),
    "antialias, all": (True, {"layers": "all"}),
}
# Least standard deviation of a patch of normalised contrast: an empty sky could be anyone's.
EMPTY = 0.3
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Task(NamedTuple):
    """Images to tell apart: of size x size pixels to train on, larger ones to test on."""

    train: Dataset[Any]
    test: Dataset[Any]
    classes: int
    channels: int
    size: int


class Augmented(Dataset[Any]):
    """Images and labels, the images transformed again each time."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Tensor], Tensor]):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.labels[index]


def training_set(
    images: Tensor, labels: Tensor, size: int, noise: float, turn: bool = False
) -> Augmented:
    crop = transforms.RandomCrop(size)

    def transform(image: Tensor) -> Tensor:
        image = crop(image)
        return add_noise(turned(image) if turn else image, noise)

    return Augmented(images, labels, transform)


def turned(image: Tensor) -> Tensor:
    """Turn an image by any number of right angles, and mirror every other one."""
    turns, mirror = torch.randint(4, ()).item(), torch.randint(2, ()).item()
    image = torch.rot90(image, int(turns), (-2, -1))
    return image.flip(-1) if mirror else image


def add_noise(images: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
    return images + noise * torch.randn(images.shape, generator=generator)


def digits(options: argparse.Namespace, seed: int) -> Task:
    """Scikit-learn's 8 x 8 digits, enlarged; those who wrote the last third are for the test."""
    size = options.size or 32
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    x = functional.interpolate(x, size=size, mode="bicubic", align_corners=False)
    # Digits are ink on an empty ground, which continues beyond the picture.
    x = (functional.pad(x, [REACH] * 4) - 0.3) / 0.4
    y = torch.tensor(labels)
    first = len(x) * 2 // 3
    generator = torch.Generator().manual_seed(seed)
    test = TensorDataset(add_noise(x[first:], options.noise, generator), y[first:])
    return Task(training_set(x[:first], y[:first], size, options.noise), test, 10, 1, size)


def photograph(name: str) -> NDArray[np.float64]:
    image = getattr(photographs, name)()
    image = image[0] if isinstance(image, tuple) else image  # of a stereo pair the left one
    image = image / 255.0
    return image @ np.array(LUMA) if image.ndim == 3 else np.asarray(image)


def without_lighting(band: NDArray[np.float64], sigma: float) -> Tensor:
    """Local contrast normalisation: away with local mean and scale, which tell of the lighting."""
    detail = band - gaussian_filter(band, sigma)
    # The blackest parts of a sky hold nothing but noise.
    scale = np.sqrt(gaussian_filter(detail**2, sigma)) + 0.02
    return torch.tensor(detail / scale, dtype=torch.float32)


def patches(bands: list[Tensor], side: int, count: int, rng: np.random.Generator) -> Tensor:
    """Patches from anywhere in the bands, but where nothing is seen."""
    room = np.array([(len(band) - side + 1) * (band.shape[1] - side + 1) for band in bands])
    found = []
    for _ in range(count):
        for _ in range(100):
            band = bands[rng.choice(len(bands), p=room / room.sum())]
            top, left = (int(rng.integers(n - side + 1)) for n in band.shape)
            patch = band[top : top + side, left : left + side]
            if patch.std() > EMPTY:
                break
        found.append(patch)
    return torch.stack(found)[:, None]


def patches_of_photographs(options: argparse.Namespace, seed: int) -> Task:
    """Patches of photographs cut into bands, every other one of which is for the test."""
    size = options.size or 48
    side = size + 2 * REACH
    rng = np.random.default_rng(seed)
    sets: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name in PHOTOGRAPHS:
        image = photograph(name)
        cut = np.array_split(image, max(2, len(image) // (3 * side // 2)))
        bands = [without_lighting(band, options.sigma) for band in cut]
        for part, count in ((0, options.train), (1, options.test)):
            # Seeds differ in which bands are for the test, too.
            sets[part].append(patches(bands[(part + seed) % 2 :: 2], side, count, rng))
    labels = [torch.arange(len(PHOTOGRAPHS)).repeat_interleave(len(part[0])) for part in sets]
    train, test = (torch.cat(part) for part in sets)
    generator = torch.Generator().manual_seed(seed)
    return Task(
        training_set(train, labels[0], size, options.noise, turn=True),
        TensorDataset(add_noise(test, options.noise, generator), labels[1]),
        len(PHOTOGRAPHS),
        1,
        size,
    )


def folder(options: argparse.Namespace) -> Task:
    """Images in FOLDER/train/CLASS and FOLDER/val/CLASS."""
    size = options.size or 224
    side = size + 2 * REACH
    normalised = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    train = ImageFolder(
        options.data / "train",
        transforms.Compose(
            [
                transforms.RandomResizedCrop(size),
                transforms.RandomHorizontalFlip(),
                *normalised,
            ]
        ),
    )
    # An eighth larger than the crop, as 256 is than 224.
    resize = transforms.Resize(max(side, size * 8 // 7))
    test = ImageFolder(
        options.data / "val",
        transforms.Compose([resize, transforms.CenterCrop(side), *normalised]),
    )
    if train.classes != test.classes:
        raise SystemExit(f"{options.data}: train and val must have the same classes")
    return Task(train, test, len(train.classes), 3, size)


class SmallResNet(models.ResNet):  # type: ignore[misc]
    """Torchvision's ResNet with one block in each of three stages, and fewer channels."""

    def __init__(self, num_classes: int, channels: int, kernel: int) -> None:
        super().__init__(models.resnet.BasicBlock, [1, 1, 1, 1])
        self.layer4 = nn.Identity()
        self.bn1 = nn.BatchNorm2d(32)
        self.conv1 = first_convolution(channels, 32, kernel)
        self.fc = nn.Linear(64, num_classes)

    def _make_layer(self, block: Any, planes: int, *args: Any, **options: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes = 32
        layer: nn.Sequential = super()._make_layer(block, planes // 4, *args, **options)
        return layer


def first_convolution(channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out_channels, kernel, 2, kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def network(stem: str, task: Task, options: argparse.Namespace) -> nn.Module:
    """Return a network with one of the stems, initialised by torch's random numbers."""
    model: nn.Module
    if options.network == "small":
        model = SmallResNet(task.classes, task.channels, options.kernel)
    else:
        model = getattr(models, options.network)(num_classes=task.classes)
        if (task.channels, options.kernel) != (3, 7):
            model.conv1 = first_convolution(task.channels, 64, options.kernel)
    if stem == "blur":
        model.maxpool = MaxBlurPool2d(3, 2, 1)
    elif stem != "conv":
        chosen = stem_options(stem, model, options)
        replace_stem(model, stem.removeprefix("paper-"), inplace=True, **chosen)
    if options.start == "ica":
        for module in model.get_submodule("conv1").modules():
            if isinstance(module, nn.Conv2d):
                independent_components(module, task, 5_000 if options.quick else 20_000)
    return model


def stem_options(stem: str, model: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """Return options of replace_stem for one of the stems."""
    if not stem.startswith("paper-"):
        return {"free_channels": options.free_channels, "groups": options.groups}
    if model.get_submodule("conv1").out_channels == 64:
        return {"design": "paper"}
    # Fewer channels: as many single packets as there are wavelet channels, all else as it is.
    return {"wavelet": "qshift_a", "mode": "zero", "colour": "mix"}


def likeness(model: nn.Module) -> float | None:
    """Return the least Gabor-likeness of the wavelet channels, colours added."""
    stem = model.get_submodule("conv1")
    if not isinstance(stem, WaveletStem):
        return None
    kernels = stem.resulting_kernel().detach().cpu()[: stem.out_channels - stem.free_channels]
    return float(characterize(kernels.sum(1).numpy())["gabor_likeness"].min())


def independent_components(conv: nn.Conv2d, task: Task, count: int) -> None:
    """Let a convolution begin with the independent components of small training patches.

    What natural images are sparse combinations of: waves under an envelope, most of them (Bell and
    Sejnowski 1997). No labels.
    """
    height, width = conv.kernel_size
    found = []
    generator = torch.Generator().manual_seed(torch.initial_seed())
    for index in torch.randint(len(cast(Sized, task.train)), (count,), generator=generator):
        image = task.train[int(index)][0]
        top, left = (
            int(torch.randint(n - side + 1, (), generator=generator))
            for n, side in zip(image.shape[1:], (height, width), strict=True)
        )
        found.append(image[:, top : top + height, left : left + width].flatten())
    samples = torch.stack(found).double()
    samples -= samples.mean(1, keepdim=True)
    ica = FastICA(conv.out_channels, random_state=0, max_iter=300, tol=1e-3)
    components = torch.from_numpy(ica.fit(samples.numpy()).mixing_.T.copy())
    # As large as the random ones in their place.
    scale = conv.weight.detach().norm() / components.norm(dim=1, keepdim=True)
    scale = scale / conv.out_channels**0.5
    conv.weight.data = (scale * components).reshape(conv.weight.shape).to(conv.weight)


def processes() -> tuple[int, int]:
    """Return this process's number, and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def say(*words: Any) -> None:
    if processes()[0] == 0:
        print(*words, flush=True)


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def optimiser_of(model: nn.Module, options: argparse.Namespace) -> torch.optim.Optimizer:
    """Return an optimiser of two groups, the first of which is the first layer's kernels."""
    stem = model.get_submodule("conv1")
    # What a wavelet stem learns besides, the mixing of packets, learns as fast as the rest.
    kernels = [module.weight for module in stem.modules() if isinstance(module, nn.Conv2d)]
    chosen = {id(weights) for weights in kernels}
    others = [weights for weights in model.parameters() if id(weights) not in chosen]
    return torch.optim.SGD(
        [
            {"params": kernels, "weight_decay": options.stem_weight_decay},
            {"params": others, "weight_decay": options.weight_decay},
        ],
        options.learning_rate,
        momentum=0.9,
        nesterov=True,
    )


def train(
    model: nn.Module, task: Task, options: argparse.Namespace, seed: int, checkpoint: Path | None
) -> float | None:
    """Train with a budget that does not depend on the stem; return milliseconds of a step."""
    rank, world = processes()
    device = options.device
    model.to(device).train()
    sampler: DistributedSampler[Any] = DistributedSampler(
        task.train, world, rank, seed=seed, drop_last=True
    )
    loader = DataLoader(
        task.train,
        options.batch // world,
        sampler=sampler,
        num_workers=options.workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    steps = options.epochs * len(loader)
    if steps == 0:
        raise SystemExit(f"--batch {options.batch} is more than the training images")
    stem = model.get_submodule("conv1")
    optimiser = optimiser_of(model, options)
    rates = [options.stem_learning_rate, options.learning_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rates, steps, pct_start=0.1, cycle_momentum=False
    )
    amp = getattr(torch, options.amp) if options.amp else None
    scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
    parts: dict[str, Any] = {
        "model": model,
        "optimiser": optimiser,
        "schedule": schedule,
        "scaler": scaler,
    }
    start = 0
    if checkpoint is not None and checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["epoch"]
    parallel: nn.Module = model
    if world > 1:
        parallel = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    durations = []
    for epoch in range(start, options.epochs):
        sampler.set_epoch(epoch)
        torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))
        total = 0.0
        for images, labels in loader:
            began = time.perf_counter()
            with torch.autocast(device.type, amp) if amp else nullcontext():
                outputs = parallel(images.to(device, non_blocking=True))
                loss = functional.cross_entropy(outputs, labels.to(device))
            if options.penalty and isinstance(stem, WaveletStem):
                loss = loss + options.penalty * stem.penalty()
            optimiser.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimiser)
            scaler.update()
            schedule.step()
            total += loss.item()  # waits for the device
            durations.append(1000 * (time.perf_counter() - began))
        if options.verbose or options.data:
            say(f"    epoch {epoch + 1} of {options.epochs}: loss {total / len(loader):.3f}")
        if checkpoint is not None and rank == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            save(checkpoint, {"epoch": epoch + 1, **state})
    if world > 1:
        for buffer in model.buffers():  # running statistics are each process's own until here
            dist.broadcast(buffer, 0)
    return float(np.median(durations)) if durations else None  # of a finished checkpoint


def evaluate(model: nn.Module, task: Task, options: argparse.Namespace) -> list[float]:
    """Accuracy, then flip rates for each number of pixels, down and to the right; percent."""
    rank, world = processes()
    share = Subset(task.test, range(rank, len(cast(Sized, task.test)), world))
    shifts = [(0, 0), *((0, d) for d in SHIFTS), *((d, 0) for d in SHIFTS)]
    counts = torch.zeros(2 + 2 * len(SHIFTS), dtype=torch.float64)
    for images, labels in DataLoader(share, options.batch, num_workers=options.workers):
        outputs = shifted_outputs(model, images.to(options.device), task.size, shifts).cpu()
        flips = flip_rate(outputs, reference="first", per_shift=True) * len(labels)
        right = (outputs[0].argmax(1) == labels).sum()
        counts += torch.cat([torch.tensor([len(labels), right]), flips])
    if world > 1:
        counts = counts.to(options.device)
        dist.all_reduce(counts)
    rates = 100 * counts[1:].cpu() / counts[0].cpu()
    return [rates[0].item(), *rates[1:].reshape(2, -1).mean(0).tolist()]


def report(rows: dict[str, list[dict[str, Any]]]) -> None:
    """Print means over seeds, and standard deviations."""
    flips = "".join(f"{f'flips, {d} px':>14}" for d in SHIFTS)
    say(f"\n{'stem':26}{'accuracy':>14}{flips}{'parameters':>12}{'stem Mmac':>11}{'ms/step':>9}")
    for name, runs in rows.items():
        values = np.array([[run["accuracy"], *run["flips"]] for run in runs])
        spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
        cells = "".join(
            f"{f'{mean:.1f} ± {error:.1f}':>14}"
            for mean, error in zip(values.mean(axis=0), spread, strict=True)
        )
        steps = [run["milliseconds"] for run in runs if run["milliseconds"] is not None]
        timing = f"{np.mean(steps):.0f}" if steps else ""
        run = runs[0]
        say(f"{name:26}{cells}{run['parameters']:12}{run['stem_macs'] / 1e6:11.2f}{timing:>9}")
    for name, runs in rows.items():
        values = np.array([run["likeness"] for run in runs], float)
        if not np.isnan(values).any():
            before, after = values.min(axis=0)
            say(f"{name}: least Gabor-likeness {before:.3f}, after training {after:.3f}")
    plain = {run["seed"]: run for run in rows.get("conv", [])}
    if not plain:
        return
    say("\nminus conv, seed by seed: accuracy, then flips, mean of all shifts")
    for name, runs in rows.items():
        if name != "conv":
            pairs = [(run, plain[run["seed"]]) for run in runs]
            gains = [f"{run['accuracy'] - base['accuracy']:+.1f}" for run, base in pairs]
            fewer = [
                f"{np.mean(run['flips']) - np.mean(base['flips']):+.2f}" for run, base in pairs
            ]
            say(f"{name:26}{' '.join(gains):>20}{' '.join(fewer):>24}")


def draw_filters(model: nn.Module, path: Path) -> None:
    """Draw the kernels of the first convolution in their order, with Gabor-likeness."""
    from matplotlib.figure import Figure

    weight = model.get_parameter("conv1.weight").detach().cpu()
    likeness = characterize(weight, stride=2)["gabor_likeness"]
    figure = Figure(figsize=(8, 9), layout="constrained")
    axes = figure.subplots(8, -(-len(weight) // 8)).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, kernel, value in zip(axes, weight.mean(1).numpy(), likeness, strict=False):
        largest = np.abs(kernel).max()
        axis.imshow(kernel, cmap="gray", vmin=-largest, vmax=largest)
        axis.set_title(f"{value:.2f}", fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.suptitle("Learned kernels of the first layer, with their Gabor-likeness (0 to 1)")
    figure.savefig(path)


def antialiased(model: nn.Module, task: Task, options: argparse.Namespace) -> dict[str, nn.Module]:
    """Return the trained network with antialias_stem in each of the ways chosen."""
    model.eval()
    torch.manual_seed(0)  # the same images in every process
    images = next(iter(DataLoader(task.train, options.calibration, shuffle=True)))[0]
    images = images.to(options.device)
    found = {}
    for name in options.averages:
        given, chosen = ANTIALIASED[name]
        stable = antialias_stem(model, images if given else None, reach=options.reach, **chosen)
        found[name] = stable.eval()
    return found


def run(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {
        name: []
        for stem in options.stems
        for name in (stem, *(options.averages if stem == "conv" else ()))
    }

    def record(
        name: str,
        model: nn.Module,
        seed: int,
        milliseconds: float | None = None,
        before: float | None = None,
    ) -> None:
        accuracy, *flips = evaluate(model, task, options)
        row = {
            "seed": seed,
            "accuracy": accuracy,
            "flips": flips,
            "parameters": sum(weights.numel() for weights in model.parameters()),
            "stem_macs": stem_cost(model, task.size).macs,
            "milliseconds": milliseconds,
            "likeness": [before, likeness(model)],
        }
        rows[name].append(row)
        rates = ", ".join(f"{rate:.1f}" for rate in flips)
        say(f"seed {seed}, {name}: accuracy {accuracy:.1f}, flips {rates}")

    for seed in options.seeds:
        if options.data:
            task = folder(options)
        else:
            make = digits if options.dataset == "digits" else patches_of_photographs
            task = make(options, seed)
        for stem in options.stems:
            random.seed(seed)
            torch.manual_seed(seed)
            model = network(stem, task, options)
            name = f"{options.network}-{stem}-{seed}"
            checkpoint = options.checkpoints / f"{name}.pt" if options.checkpoints else None
            before = likeness(model)
            milliseconds = train(model, task, options, seed, checkpoint)
            record(stem, model, seed, milliseconds, before)
            if stem != "conv":
                continue
            if options.pictures and processes()[0] == 0:
                draw_filters(model, options.pictures / f"{name}.png")
            for kind, stable in antialiased(model, task, options).items():
                record(kind, stable, seed)
    return rows


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", choices=("photographs", "digits"), default="photographs")
    add("--data", type=Path, metavar="FOLDER", help="images of your own, in place of --dataset")
    add("--network", default="small", help="small, or a ResNet of torchvision: resnet18")
    add("--kernel", type=int, default=7, help="side of the first layer's kernels (7)")
    start = "first kernels: of independent components (photographs), which learn 100 times slower"
    add("--start", choices=("random", "ica"), help=start)
    add("--stems", nargs="+", choices=STEMS, default=STEMS)
    add("--averages", nargs="*", choices=ANTIALIASED, default=[*ANTIALIASED], help="of conv (all)")
    add("--free-channels", type=int, help="of rmax and cmod (default: five of eight)")
    add("--groups", choices=("packet", "sector", "octave"), default="packet", help="of rmax, cmod")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--size", type=int, help="pixels (default: 48; digits 32, FOLDER 224)")
    add("--train", type=int, default=600, help="training patches of each photograph (600)")
    add("--test", type=int, default=300, help="test patches of each photograph (300)")
    add("--sigma", type=float, default=2.0, help="pixels of the local normalisation (2)")
    add("--noise", type=float, default=0.0, help="standard deviation; contrast is 1 (0)")
    add("--epochs", type=int, default=8)
    add("--batch", type=int, default=64, help="of all processes together (64)")
    add("--learning-rate", type=float, default=0.1)
    add("--weight-decay", type=float, default=1e-3)
    add("--stem-weight-decay", type=float, help="of its kernels (the same)")
    add("--stem-learning-rate", type=float, help="of its kernels (see --start)")
    add("--penalty", type=float, default=0.0, help="factor of WaveletStem.penalty() in the loss")
    add("--reach", type=int, default=2, help="pixels of antialias_stem's average (2)")
    add("--calibration", type=int, default=512, help="images for antialias_stem (512)")
    add("--amp", choices=("bfloat16", "float16"), help="mixed precision")
    add("--device", help="default: cuda where there is one")
    add("--workers", type=int, default=0, help="processes that load images (0)")
    add("--checkpoints", type=Path, metavar="DIR", help="save every epoch here, and resume")
    add("--pictures", type=Path, metavar="DIR", help="draw the filters of the conv networks here")
    add("--json", type=Path, metavar="FILE", help="write the table here too")
    add("--verbose", action="store_true", help="the loss after every epoch")
    add("--quick", action="store_true", help="one seed, seconds: a trial that learns little")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.epochs, options.train, options.test = [0], 2, 20, 20
    if options.start is None:
        photographic = options.dataset == "photographs" and not options.data
        options.start = "ica" if photographic else "random"
    if options.stem_learning_rate is None:
        slower = 0.01 if options.start == "ica" else 1.0
        options.stem_learning_rate = slower * options.learning_rate
    if options.stem_weight_decay is None:
        options.stem_weight_decay = options.weight_decay
    if options.data and not (options.data / "train").is_dir():
        parser.error(f"--data {options.data} has no folder train")
    return options


def main() -> None:
    options = arguments()
    started = time.perf_counter()
    if "WORLD_SIZE" in os.environ:  # torchrun
        cuda = torch.cuda.is_available() and options.device in (None, "cuda")
        dist.init_process_group("nccl" if cuda else "gloo")
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    default = "cuda" if torch.cuda.is_available() else "cpu"
    options.device = torch.device(options.device or default)
    if options.device.type == "cuda":
        options.device = torch.device("cuda", torch.cuda.current_device())
    try:
        rows = run(options)
        report(rows)
        if options.json and processes()[0] == 0:
            options.json.write_text(json.dumps(rows, indent=1) + "\n")
        say(f"\nDone in {time.perf_counter() - started:.0f} s.")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
