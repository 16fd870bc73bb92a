"""Figures of the gallery's scripts, which are made without pyplot: those that a block has named."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray
from sphinx_gallery.scrapers import figure_rst


def figures_of_examples(block, block_vars, gallery_conf):
    """Save what variables of the block hold for the first time, and return how to show it."""
    names = block_vars["example_globals"]
    seen = names.setdefault("__figures__", [])
    paths = []
    for value in list(names.values()):
        first = value.flat[0] if isinstance(value, ndarray) and value.dtype == object else value
        figure = first.figure if isinstance(first, Axes) else first
        if isinstance(figure, Figure) and not any(figure is old for old in seen):
            seen.append(figure)
            paths.append(next(block_vars["image_path_iterator"]))
            figure.savefig(paths[-1], dpi=125)
    return figure_rst(paths, gallery_conf["src_dir"])
