"""Compare the speed of two revisions: they take turns, each in a process that lives on.

    python benchmarks/compare.py --base REV [--head REV]

Both are checked out into a temporary folder and run from there, with a native engine if they have
one and CMake finds a compiler. A ratio is that of the shortest times.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NATIVE = Path("dtwpt", "engine", "native")


def contestants() -> dict[str, Callable[[], Any]]:
    """Return what both revisions run: functions that all revisions have."""
    import torch

    import dtwpt
    import dtwpt.nn

    generator = torch.Generator().manual_seed(0)
    large = torch.rand(16, 3, 224, 224, generator=generator)
    small = torch.rand(256, 3, 32, 32, generator=generator)
    huge = torch.rand(1, 1, 4096, 4096, generator=generator)
    module = dtwpt.nn.CMod2d()

    def step(x: torch.Tensor) -> None:
        module(x.requires_grad_()).sum().backward()
        x.grad = None
        x.requires_grad_(False)

    return {
        "cmod2, 16 x 3 x 224 x 224": lambda: dtwpt.cmod2(large),
        "cmod2, 16 x 3 x 224 x 224, depth 3": lambda: dtwpt.cmod2(large, depth=3),
        "cmod2, 16 x 3 x 224 x 224, NumPy": lambda: dtwpt.cmod2(large.numpy()),
        "cmod2, 256 x 3 x 32 x 32": lambda: dtwpt.cmod2(small),
        "cmod2, 256 x 3 x 32 x 32, depth 3": lambda: dtwpt.cmod2(small, depth=3),
        "cmod2, 4096 x 4096": lambda: dtwpt.cmod2(huge),
        "rmax2, 16 x 3 x 224 x 224": lambda: dtwpt.rmax2(large),
        "CMod2d, 16 x 3 x 224 x 224": lambda: module(large),
        "CMod2d and its gradient, 16 x 3 x 224 x 224": lambda: step(large),
    }


def work(threads: int) -> None:
    """Answer each name on standard input with the seconds that it took."""
    import torch

    torch.set_num_threads(threads)
    runs = contestants()
    print(*runs, sep="\n", end="\n\n", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        runs[line.strip()]()
        print(time.perf_counter() - start, flush=True)


class Worker:
    """A revision in a process of its own."""

    def __init__(self, checkout: Path, threads: int) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(checkout),
            "DTWPT_NUM_THREADS": str(threads),
        }
        command = [sys.executable, __file__, "--worker", "--threads", str(threads)]
        self.process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.names = [*iter(self.read, "")]

    def read(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a revision ended with {self.process.wait()}")
        return line.strip()

    def run(self, name: str) -> float:
        """Return the seconds that a contestant takes."""
        assert self.process.stdin
        print(name, file=self.process.stdin, flush=True)
        return float(self.read())


def check_out(revision: str, folder: Path) -> Path:
    """Put a revision into a folder and build its native engine."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--verify", f"{revision}^{{commit}}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    checkout = folder / commit
    if checkout.exists():
        return checkout
    # An archive, as a worktree would have to be taken out of the repository again.
    checkout.mkdir()
    archive = subprocess.run([*git, "archive", commit], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(checkout)], check=True, input=archive)
    if (checkout / NATIVE / "CMakeLists.txt").exists():
        build = str(checkout / "build")
        print(f"building {revision}", flush=True)
        for command in (
            ["cmake", "-S", str(checkout / NATIVE), "-B", build],
            ["cmake", "--build", build, "--parallel"],
        ):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return checkout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="revision to compare with")
    parser.add_argument("--head", default="HEAD", help="revision to compare, default: HEAD")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.threads)
        return
    if not arguments.base:
        parser.error("--base is needed: the revision to compare with")
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [check_out(rev, Path(folder)) for rev in (arguments.base, arguments.head)]
        workers = [Worker(checkout, arguments.threads) for checkout in checkouts]
        print(f"milliseconds of {arguments.base} and {arguments.head}, and their ratio")
        for name in workers[0].names:
            times = [[worker.run(name) for worker in workers] for _ in range(arguments.rounds + 1)]
            base, head = (1e3 * min(seconds) for seconds in zip(*times[1:], strict=True))
            print(f"  {name:<45}{base:10.2f}{head:10.2f}{base / head:8.2f}", flush=True)
        for worker in workers:
            assert worker.process.stdin
            worker.process.stdin.close()
            worker.process.wait()


if __name__ == "__main__":
    main()
