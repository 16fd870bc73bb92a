"""Formulas as SVG outlines drawn by matplotlib: legible without a network and in both themes."""

import re
from functools import cache
from html import escape

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import MathTextParser
from matplotlib.textpath import TextPath

SIZE = 100.0  # units of the drawing in one em


@cache
def svg(latex, display):
    """Return the formula as an <svg> whose lengths are in em of the surrounding text."""
    source = " ".join(latex.split())
    source = re.sub(r"\\text\{", r"\\mathrm{", source)
    source = re.sub(r"\\sqrt (\w)", r"\\sqrt{\1}", source)
    prop = FontProperties(family="serif", math_fontfamily="stix", size=SIZE)
    text = rf"${source}$"
    width, height, depth, *_ = MathTextParser("path").parse(text, 72, prop)
    path = TextPath((0, 0), text, size=SIZE, prop=prop)
    out = []
    for points, code in path.iter_segments(curves=True, simplify=False):
        pairs = points.reshape(-1, 2)
        coordinates = " ".join(f"{x:.1f} {-y:.1f}" for x, y in pairs)
        out.append({1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}[int(code)])
        if code != 79:
            out.append(coordinates)
    margin = 0.04 * SIZE
    top, bottom = height - depth + margin, depth + margin
    scale = (1.15 if display else 1.05) / SIZE
    return (
        f'<svg class="math" role="img" aria-label="{escape(latex, quote=True)}" '
        f'style="width:{width * scale:.3f}em;height:{(top + bottom) * scale:.3f}em;'
        f'vertical-align:{-bottom * scale:.3f}em" '
        f'viewBox="0 {-top:.1f} {width:.1f} {top + bottom:.1f}">'
        f'<path d="{" ".join(out)}"/></svg>'
    )


def inline(self, node):
    self.body.append(svg(node.astext(), False))
    raise nodes.SkipNode


def block(self, node):
    for formula in filter(None, map(str.strip, node.astext().split("\n\n"))):
        self.body.append(f'<div class="math">{svg(formula, True)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathtext", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
