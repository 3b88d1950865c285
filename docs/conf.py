"""The documentation as a site: ``sphinx-build -W --keep-going -n docs _site``. Needs no network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole

import lazynwb_dask

project = "lazynwb_dask"
author = "The lazynwb_dask developers"
copyright = author
version = release = lazynwb_dask.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx_click"]
exclude_patterns = ["_build"]
default_role = "known"

autodoc_typehints = "none"  # the docstrings tell types
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
toc_object_entries = False
add_module_names = False  # all public names are in lazynwb_dask
smartquotes = False
python_maximum_signature_line_length = 88

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

highlight_language = "text"  # of blocks that name none

html_theme = "furo"
html_title = f"lazynwb_dask {version}"
html_static_path: list[str] = []
html_copy_source = False


class Known(SphinxRole):
    """Single backticks in docstrings: a link where it is a public name, else code."""

    def run(self) -> tuple[list[nodes.Node], list[Any]]:
        name = self.text.removesuffix("()")
        public = name.removeprefix("lazynwb_dask.").partition(".")[0]
        code = nodes.literal(self.text, self.text, classes=["xref", "py"])
        if public not in lazynwb_dask.__all__ or public.startswith("_"):
            return [code], []
        target = name if name.startswith("lazynwb_dask.") else f"lazynwb_dask.{name}"
        options = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refdoc": self.env.docname}
        link = addnodes.pending_xref(self.text, code, refwarn=True, **options)
        return [link], []


def escape(app: Sphinx, context: Any, lines: list[str]) -> None:
    """Helps of commands are plain text, in which stars are of globs."""
    lines[:] = [line.replace("*", r"\*") for line in lines]


def not_called(app: Sphinx, what: str, name: str, obj: object, options: Any, *signature: Any) -> Any:
    """Classes are made by functions: how they are called tells a reader nothing."""
    return ("", None) if what == "class" else None


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", not_called)
    for part in ("description", "options", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape)
    app.add_role("known", Known())
