"""Table of the networks whose first layer ``replace_stem`` can replace.

Builds the networks in the registries of torchvision and timm, without memory, and writes
``families.rst``: what is recognised, what works once it is named, and what is refused and why. Of
names that differ in numbers and words for sizes alone, the first is taken.

    python docs/families.py
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from timm.models._registry import _model_to_module

from dtwpt.nn import replace_stem
from dtwpt.nn.locate import find_stem

# Errors of replace_stem, and what the table says instead.
REASONS = {
    "no pooling comes after": "no pooling follows the first convolution",
    "stride of 2 pixels": 'stride 2: depth 1 has no "gabor" packets',
    "lie between": "several convolutions before the first pooling, in no module of their own",
    "has no nn.Conv2d": "no two-dimensional convolution",
    "would not be there any more": "the map before the pooling is used elsewhere",
    "no wavelet stem of depth": "other sizes than any wavelet stem gives",
    "does not call": "the first convolution is not called for an image",
    "is not applied to": "the first pooling is not applied to the first convolution",
    "changes the size": "padding between convolution and pooling that is no part of either",
    "which is no power of two": "stride that is no power of two",
    "must give maps": "no maps (N, C, H, W)",
    "has one stride": "unequal strides",
    "stems that look alike": "several first layers",
}
# Of a first layer: more are a network.
MOST_CONVOLUTIONS = 6
SIZES = re.compile(
    "atto|femto|pico|nano|micro|mini|tiny|small|little|medium|base|x?large|huge|giant|gigantic|"
    "enormous|x*[sml]|x*l|[xntbghw]|so"
)


def family(name: str) -> str:
    """Return a name without numbers and words for sizes."""
    words = re.sub(r"\d+", "", name).split("_")
    return "_".join(word for word in words if word and not SIZES.fullmatch(word))


def networks() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield library and module, name, and what builds the network, one of each family."""
    seen = set()
    for module, name, build in registries():
        if (module, family(name)) not in seen:
            seen.add((module, family(name)))
            yield module, name, build


def registries() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Yield all networks, in order of their names."""
    for name in torchvision.models.list_models():
        if name.startswith("quantized"):
            continue
        builder = torchvision.models.get_model_builder(name)
        module = builder.__module__.removeprefix("torchvision.models.")

        def build(builder: Any = builder) -> Any:
            for options in ({"weights_backbone": None}, {"init_weights": False}, {}):
                try:
                    return builder(weights=None, **options)
                except TypeError:
                    continue
            raise TypeError(builder)

        yield f"torchvision {module}", name, build
    for name in timm.list_models():
        yield f"timm {_model_to_module[name]}", name, lambda name=name: timm.create_model(name)


def made(build: Callable[[], Any]) -> Any:
    """Return a network without memory, or with it where it computes as it is built."""
    try:
        with torch.device("meta"):
            return build().eval()
    except NotImplementedError:
        return build().eval()


def beginning(model: torch.nn.Module) -> tuple[Any, ...]:
    """Return kind of the network and what its first layers are, apart from their widths."""
    leaves = ((n, m) for n, m in model.named_modules() if not any(True for _ in m.children()))
    layers = [
        (name, type(m), *(str(getattr(m, k, "")) for k in ("kernel_size", "stride", "padding")))
        for name, m in islice(leaves, 24)
    ]
    return type(model), *layers


def outcome(model: torch.nn.Module) -> tuple[str, str]:
    """Return "recognised", "named" or "refused", and the names or the reason."""
    try:
        names = find_stem(model, replaceable=False).names
        replace_stem(model, inplace=True)
        ends = dict.fromkeys((names[0], names[-1]))
        return "recognised", ", ".join(f"``{name}``" for name in ends)
    except ValueError as error:
        message = str(error)
    first = (getattr(model, "default_cfg", None) or {}).get("first_conv")
    convolutions = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)][:1]
    whole = (first if isinstance(first, str) else (convolutions or [""])[0]).split(".")
    for depth in range(len(whole), 0, -1):
        try:
            part = model.get_submodule(".".join(whole[:depth]))
            if sum(isinstance(m, torch.nn.Conv2d) for m in part.modules()) > MOST_CONVOLUTIONS:
                break
            replace_stem(model, conv=".".join(whole[:depth]), inplace=True)
            return "named", f'``conv="{".".join(whole[:depth])}"``'
        except (ValueError, TypeError, AttributeError):
            continue
    short = [reason for words, reason in REASONS.items() if words in message]
    return "refused", short[0] if short else re.split(r"[:.;] ", message)[0]


def cell(entries: Counter[str]) -> str:
    return "; ".join(f"{text} ({count})" for text, count in entries.most_common(4)) or "-"


def main() -> None:
    warnings.filterwarnings("ignore")
    rows: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    known: dict[tuple[Any, ...], tuple[str, str]] = {}  # networks that begin alike fare alike
    for module, name, build in networks():
        try:
            model = made(build)
        except Exception as error:  # of the library
            print(f"{name} was not built: {type(error).__name__}: {str(error)[:100]}")
            continue
        like = beginning(model)
        if like not in known:
            known[like] = outcome(model)
        kind, text = known[like]
        rows[module][kind][text] += 1
        totals[module.split()[0]][kind] += 1
    parts = [HEAD.format(timm=timm.__version__, torchvision=torchvision.__version__)]
    for library, counts in totals.items():
        parts.append(
            f"{library}: {counts['recognised']} recognised, {counts['named']} by name, "
            f"{counts['refused']} refused\n"
        )
        parts[-1] += "-" * (len(parts[-1]) - 1) + "\n"
        parts.append(
            ".. list-table::\n   :header-rows: 1\n   :widths: 16 28 22 34\n\n"
            "   * - Module\n     - Recognised\n     - By name\n     - Refused"
        )
        for module, kinds in sorted(rows.items()):
            if module.split()[0] == library:
                cells = [cell(kinds[kind]) for kind in ("recognised", "named", "refused")]
                parts[-1] += "".join(
                    f"\n   {'* ' if k == 0 else '  '}- {text}"
                    for k, text in enumerate([module.split()[1], *cells])
                )
        parts[-1] += "\n"
    (Path(__file__).parent / "families.rst").write_text("\n".join(parts))


HEAD = """\
Networks whose first layer can be replaced
==========================================

.. Written by families.py: do not edit.

The networks of torchvision {torchvision} and timm {timm}, tried by ``python docs/families.py`` with
:func:`~dtwpt.nn.replace_stem` as it stands: of names that differ in numbers and words for sizes
alone, the first. How many these are is in brackets. *Recognised*: ``replace_stem(model)`` works;
first and last module of the layer that is replaced. *By name*: it works with the argument that
stands there, in place of that module alone. *Refused*: it raises an error, with this reason.

A network whose first convolution has stride 2 and is not followed by a pooling has no room for a
wavelet stem of depth 2, which stands for a stride of 4.
"""


if __name__ == "__main__":
    main()
