"""Settings of the documentation. Building it needs no network: neither does reading it."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import dtwpt  # noqa: E402

project = "dtwpt"
author = "The dtwpt developers"
project_copyright = "2026, The dtwpt developers"
version = release = dtwpt.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.viewcode",  # a link from each function to its source
    "sphinx_copybutton",
    "numpydoc",
    "myst_parser",  # for the change log
    "matplotlib.sphinxext.plot_directive",
    "sphinx_gallery.gen_gallery",
    "mathtext",
    "clihelp",
]
exclude_patterns = ["_build", "gallery"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore = [("py:class", "optional")]
nitpick_ignore_regex = [("py:.*", r"torch\..*")]  # described on a site of its own

# The signatures say it all with the numpydoc sections; annotations would only repeat them.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate_overwrite = True
numpydoc_show_class_members = False

# torchmetrics imports it where it is there, and it fits one build of torch only.
autodoc_mock_imports = ["torchvision"]

# Figures: drawn at build time by the scripts in figures/, with the library itself.
plot_basedir = "figures"
plot_formats = [("svg", 160)]  # pictures of pixels in them have that resolution
plot_html_show_formats = False
plot_html_show_source_link = False
plot_include_source = False
plot_apply_rcparams = True
plot_rcparams = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
}

# The gallery: scripts that run at build time, with notebooks to download.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "backreferences_dir": "auto_gallery/backreferences",
    "doc_module": ("dtwpt",),
    "image_scrapers": ("figures_of_examples.figures_of_examples",),
    "reset_modules": (),
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 1e9,
    "abort_on_example_error": True,
}

# Links to the documentation of other packages, on demand, as the build needs no network otherwise:
# DTWPT_DOCS_INVENTORIES is "online", or a folder of numpy.inv, torch.inv and so on.
inventories = os.environ.get("DTWPT_DOCS_INVENTORIES")
if inventories:
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        name: (site, None if inventories == "online" else str(Path(inventories, f"{name}.inv")))
        for name, site in {
            "python": "https://docs.python.org/3/",
            "numpy": "https://numpy.org/doc/stable/",
            "scipy": "https://docs.scipy.org/doc/scipy/",
            "matplotlib": "https://matplotlib.org/stable/",
            "sklearn": "https://scikit-learn.org/stable/",
            "torch": "https://docs.pytorch.org/docs/stable/",
        }.items()
        if inventories == "online" or Path(inventories, f"{name}.inv").is_file()
    }

html_theme = "furo"
html_title = f"dtwpt {release}"
html_math_renderer = "mathtext"
html_static_path = ["_static"]
html_css_files = ["dtwpt.css"]
html_show_sphinx = False

# Prompts and output are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

doctest_global_setup = "import numpy as np\nimport dtwpt"
