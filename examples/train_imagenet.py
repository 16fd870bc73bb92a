"""Train the papers' twin networks on a folder of images, and measure them as their authors did.

    torchrun --nproc-per-node 8 examples/train_imagenet.py --data imagenet --network resnet34 \
        --designs cnn wcnn cwcnn --amp bfloat16 --workers 8 --checkpoints runs

Networks: alexnet, resnet18, resnet34, resnet50 of torchvision. Designs: cnn as it is, wcnn with the
RMax twin of its first layer, cwcnn with the CMod twin; with "blur-" before them with a binomial
blur of three taps wherever the network subsamples, with "ablur-" with an adaptive one. Images are
those of DATA/train/CLASS and DATA/val/CLASS. The schedule is the authors' (arXiv 2212.00394): SGD
with momentum 0.9 and weight decay 1e-4, a rate of 0.1 (AlexNet 0.01) divided by 10 after each third
of 90 epochs, batches of 256. --checkpoints saves every epoch; the same command resumes.

Printed for each design, beside what its authors report for ImageNet where they do: top-1 error in
percent with one crop and with ten; flips: share of all pairs of shifts 1 pixel apart, of 0 to 8,
with different predictions, in percent; their ratio to cnn's, mean of 1 to 8 pixels apart; for
shifts to the right, down and diagonal; and the divergence (nats) between outputs half a pixel
apart.

A trial on images that are made up: --trial, a minute on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torchvision import models, transforms
from torchvision.datasets import ImageFolder

from dtwpt.invariance import characterize
from dtwpt.metrics import (
    flip_curve,
    flip_ratio,
    shift_kl_divergence,
    shifted_outputs,
    shifts_along,
    ten_crop_probabilities,
)
from dtwpt.nn import WaveletStem, replace_stem
from dtwpt.nn.blurring import blurred

TWINS = {"cnn": None, "wcnn": "rmax", "cwcnn": "cmod"}
BLURS: dict[str, int | str | None] = {"": None, "blur-": 3, "ablur-": "adaptive"}
DESIGNS = {
    blur + twin: (operator, taps)
    for blur, taps in BLURS.items()
    for twin, operator in TWINS.items()
}
DIRECTIONS = ("horizontal", "vertical", "diagonal")
REACH = 8
# AlexNet's regulariser, a factor for each scale.
PENALTY = (0.0, 4.1e-3, 3.2e-4)
# Of the authors' stored results (github.com/hubert-leterme/wcnn), ImageNet, one run each: top-1
# error with one and ten crops, flips 1 pixel apart, ratio to cnn; in percent, to the right.
AUTHORS = {
    "alexnet": {
        "cnn": (45.29, 41.31, 14.4, 100.0),
        "wcnn": (44.89, 40.79, 15.8, 102.2),
        "cwcnn": (44.26, 40.23, 9.0, 84.3),
        "blur-cnn": (44.37, 40.75, 8.1, 59.6),
        "blur-wcnn": (44.25, 40.46, 9.1, 60.7),
        "blur-cwcnn": (43.34, 39.56, 6.8, 65.9),
    },
    "resnet34": {
        "cnn": (27.62, 24.81, 10.1, 100.0),
        "wcnn": (27.43, 24.72, 10.7, 98.4),
        "cwcnn": (27.18, 24.42, 8.6, 91.1),
        "blur-cnn": (26.66, 23.99, 8.0, 76.6),
        "blur-wcnn": (26.69, 24.14, 9.1, 82.4),
        "blur-cwcnn": (26.55, 23.73, 7.5, 77.7),
        "ablur-cnn": (26.13, 23.54, 8.4, 76.8),
        "ablur-wcnn": (25.96, 23.60, 8.9, 79.0),
        "ablur-cwcnn": (26.09, 23.71, 7.6, 78.7),
    },
}


def build(name: str, design: str, classes: int) -> nn.Module:
    """Return a network of one design, initialised by torch's random numbers."""
    operator, taps = DESIGNS[design]
    model: nn.Module = getattr(models, name)(num_classes=classes)
    if operator is not None:
        options: dict[str, Any] = {} if taps is None else {"blur": taps}
        model = replace_stem(model, operator, design="paper", **options)
    return model if taps is None else blurred(model, taps)


def rank_and_world() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def say(*words: Any) -> None:
    if rank_and_world()[0] == 0:
        print(*words, flush=True)


def images(options: argparse.Namespace) -> tuple[ImageFolder, ImageFolder]:
    size = options.size
    normal = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    tensor = [transforms.ToTensor(), normal]
    train = transforms.Compose(
        [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *tensor]
    )
    # As 256 is to 224, with room for the shifts; of double size for half pixels.
    side = max(size * 8 // 7, size + 2 * REACH)
    single = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(side), *tensor])
    double = transforms.Compose(
        [transforms.Resize(2 * side), transforms.CenterCrop(2 * side), *tensor]
    )
    return (
        ImageFolder(options.data / "train", train),
        ImageFolder(options.data / "val", lambda image: (single(image), double(image))),
    )


def train(model: nn.Module, folder: ImageFolder, path: Path | None, options: Any) -> None:
    rank, world = rank_and_world()
    device = options.device
    sampler: DistributedSampler[Any] = DistributedSampler(
        folder, world, rank, seed=options.seed, drop_last=True
    )
    loader = DataLoader(
        folder,
        options.batch // world,
        sampler=sampler,
        num_workers=options.workers,
        drop_last=True,
        pin_memory=device.type == "cuda",
    )
    rate = 0.01 if options.network == "alexnet" else 0.1
    optimiser = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=1e-4)
    third = max(1, options.epochs // 3)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, third)
    amp = getattr(torch, options.amp) if options.amp else None
    scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
    parts: dict[str, Any] = {
        "model": model,
        "optimiser": optimiser,
        "schedule": schedule,
        "scaler": scaler,
    }
    start = 0
    if path is not None and path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        start = state["epoch"]
    parallel: nn.Module = model
    if world > 1:
        parallel = DistributedDataParallel(model, [device] if device.type == "cuda" else None)
    stem = next((m for m in model.modules() if isinstance(m, WaveletStem)), None)
    for epoch in range(start, options.epochs):
        sampler.set_epoch(epoch)
        # The same when resumed, and other crops in each process.
        random = np.random.SeedSequence([options.seed, epoch, rank])
        torch.manual_seed(int(random.generate_state(1)[0]))
        parallel.train()
        total, norms = 0.0, torch.zeros(len(PENALTY))
        for batch, labels in loader:
            with torch.autocast(device.type, amp) if amp else nullcontext():
                outputs = parallel(batch.to(device, non_blocking=True))
                loss = functional.cross_entropy(outputs, labels.to(device))
            optimiser.zero_grad()
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if stem is not None and options.network == "alexnet":
                # Derivatives of the loss alone, by which the authors chose the factors.
                norms += stem.gradient_norms().cpu() / scaler.get_scale()
                scaler.scale(stem.penalty(PENALTY)).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimiser)
            scaler.update()
            total += loss.item()
        schedule.step()
        say(f"  epoch {epoch + 1} of {options.epochs}: loss {total / max(1, len(loader)):.3f}")
        if norms.any():
            say("    derivatives by scale:", *(f"{n / len(loader):.1e}" for n in norms))
        if path is not None and rank == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            state = {name: part.state_dict() for name, part in parts.items()}
            torch.save({"epoch": epoch + 1, **state}, path.with_suffix(".part"))
            os.replace(path.with_suffix(".part"), path)
    if world > 1:
        for buffer in model.buffers():  # running statistics are each process's own until here
            dist.broadcast(buffer, 0)


def evaluate(model: nn.Module, folder: ImageFolder, options: Any) -> dict[str, Any]:
    """Return errors, flip curves and divergences, means over all images."""
    rank, world = rank_and_world()
    model.eval()
    curves = {name: torch.zeros(REACH, dtype=torch.float64) for name in DIRECTIONS}
    sums = torch.zeros(4, dtype=torch.float64)  # images, errors, errors of ten crops, divergence
    halves = shifts_along("horizontal", 1, 0.5)
    share = Subset(folder, range(rank, len(folder), world))
    for (single, double), labels in DataLoader(
        share, options.evaluation_batch, num_workers=options.workers
    ):
        x, count = single.to(options.device), len(labels)
        for name in DIRECTIONS:
            outputs = shifted_outputs(model, x, options.size, shifts_along(name, REACH)).cpu()
            curves[name] += flip_curve(outputs) * count
            if name == "horizontal":
                wrong = (outputs[0].argmax(1) != labels).sum()
        ten = ten_crop_probabilities(model, x, options.size).cpu().argmax(1)
        half = shifted_outputs(model, double.to(options.device), options.size, halves, scale=2)
        divergence = shift_kl_divergence(half.cpu(), "previous") * count
        sums += torch.stack([torch.tensor(count), wrong, (ten != labels).sum(), divergence])
    every = torch.cat([sums, *curves.values()]).to(options.device)
    if world > 1:
        dist.all_reduce(every)
    every = every.cpu() / every[0].cpu()
    flips = dict(zip(DIRECTIONS, every[4:].reshape(len(DIRECTIONS), REACH), strict=True))
    return {
        "error": 100 * every[1].item(),
        "ten crops": 100 * every[2].item(),
        "divergence": every[3].item(),
        "curves": {name: curve.tolist() for name, curve in flips.items()},
    }


def likeness(model: nn.Module) -> float | None:
    """Return the least Gabor-likeness of the wavelet channels, colours added."""
    stem = next((m for m in model.modules() if isinstance(m, WaveletStem)), None)
    if stem is None:
        return None
    kernels = stem.resulting_kernel().detach().cpu()[: stem.out_channels - stem.free_channels]
    return float(characterize(kernels.sum(1).numpy())["gabor_likeness"].min())


def report(rows: dict[str, dict[str, Any]], network: str) -> None:
    say(f"\n{'design':14}{'top-1 error':>13}{'ten crops':>11}{'flips, 1 px':>25}{'ratio':>25}")
    base = rows.get("cnn")
    for design, row in rows.items():
        ratios = []
        for name in DIRECTIONS:
            curve = torch.tensor(row["curves"][name])
            plain = torch.tensor(base["curves"][name]) if base else torch.zeros(())
            known = base is not None and bool((plain > 0).all())
            ratios.append(f"{100 * flip_ratio(curve, plain):.1f}" if known else "-")
        flips = " ".join(f"{100 * row['curves'][name][0]:.1f}" for name in DIRECTIONS)
        say(
            f"{design:14}{row['error']:13.2f}{row['ten crops']:11.2f}{flips:>25}"
            f"{' '.join(ratios):>25}   divergence {row['divergence']:.2g}"
        )
        published = AUTHORS.get(network, {}).get(design)
        if published:
            error, ten, flip, ratio = published
            say(f"{'  authors':14}{error:13.2f}{ten:11.2f}{flip:25.1f}{ratio:25.1f}")


def made_up(folder: Path, size: int) -> Path:
    """Write gratings of two orientations, a class each, as a folder of images."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: 2 * size, : 2 * size]
    for part, count in (("train", 100), ("val", 8)):
        for label, wave in (("across", x), ("down", y)):
            (folder / part / label).mkdir(parents=True)
            for index in range(count):
                grating = np.sin(rng.uniform(0.2, 1) * wave + rng.uniform(0, 6))[..., None]
                noisy = 128 + 60 * grating + 40 * rng.standard_normal((2 * size, 2 * size, 3))
                picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
                picture.save(folder / part / label / f"{index}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER")
    add("--network", choices=("alexnet", "resnet18", "resnet34", "resnet50"), default="resnet34")
    add("--designs", nargs="+", choices=DESIGNS, default=["cnn", "wcnn", "cwcnn"])
    add("--size", type=int, default=224)
    add("--epochs", type=int, default=90)
    add("--batch", type=int, default=256, help="of all processes together (256)")
    add("--evaluation-batch", type=int, default=64)
    add("--seed", type=int, default=0)
    add("--amp", choices=("bfloat16", "float16"), help="mixed precision")
    add("--device", help="default: cuda where there is one")
    add("--workers", type=int, default=0, help="processes that load images (0)")
    add("--checkpoints", type=Path, metavar="DIR", help="save every epoch here, and resume")
    add("--json", type=Path, metavar="FILE", help="write all measurements here")
    add("--trial", action="store_true", help="small made-up images, one epoch")
    options = parser.parse_args()
    if not options.trial and options.data is None:
        parser.error("--data FOLDER is required, or --trial")
    if "WORLD_SIZE" in os.environ:  # torchrun
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    options.device = torch.device(
        options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        if options.trial:
            options.size, options.epochs, options.batch = 64, 1, 20
            options.data = made_up(Path(temporary), options.size)
        training, validation = images(options)
        for design in options.designs:
            torch.manual_seed(options.seed)
            model = build(options.network, design, len(training.classes)).to(options.device)
            say(f"{options.network} {design}: {sum(p.numel() for p in model.parameters())} weights")
            path = options.checkpoints
            path = None if path is None else path / f"{options.network}-{design}-{options.seed}.pt"
            train(model, training, path, options)
            rows[design] = evaluate(model, validation, options)
            least = likeness(model)
            if least is not None:
                say(f"  least Gabor-likeness of the wavelet channels: {least:.3f}")
                rows[design]["likeness"] = least
    report(rows, options.network)
    if options.json and rank_and_world()[0] == 0:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
