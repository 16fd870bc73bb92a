"""From which kernel size on circular convolution is faster by spectra.

Forward passes, and steps with gradients, of CircularConv2d with and without ``fft``, in turns.
"""

from __future__ import annotations

import argparse
import time

import torch

from dtwpt.nn import CircularConv2d


def milliseconds(conv: CircularConv2d, x: torch.Tensor, fft: bool, gradients: bool) -> float:
    conv.fft = fft
    # Of this thread's own time on a CPU, on which other programs may run.
    clock = time.perf_counter if x.is_cuda else time.thread_time
    began = clock()
    with torch.set_grad_enabled(gradients):
        y = conv(x)
        if gradients:
            torch.autograd.backward(y.sum())
    if x.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (clock() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--kernels", type=int, nargs="+", default=[3, 5, 7, 9, 11, 15, 21, 31])
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for gradients in (False, True):
        for size in options.sizes:
            shape = options.batch, options.channels, size, size
            x = torch.randn(shape, device=options.device, requires_grad=gradients)
            faster = []
            for kernel in options.kernels:
                conv = CircularConv2d(options.channels, options.channels, kernel)
                conv.to(options.device)
                times: dict[bool, list[float]] = {False: [], True: []}
                for turn in range(options.rounds + 1):
                    for fft in (False, True):
                        taken = milliseconds(conv, x, fft, gradients)
                        if turn:
                            times[fft].append(taken)
                direct, spectra = (min(times[fft]) for fft in (False, True))
                faster.append(spectra < direct)
                kind = "with gradients" if gradients else "forward"
                print(
                    f"{kind}, {size} x {size}, kernel {kernel:2}: direct {direct:8.2f} ms, "
                    f"spectra {spectra:8.2f} ms",
                    flush=True,
                )
            last = max((k for k, better in enumerate(faster) if not better), default=-1) + 1
            found = options.kernels[last] if last < len(faster) else None
            print(f"  spectra are faster from kernel size {found} on")


if __name__ == "__main__":
    main()
