"""Sphinx's settings, for `sphinx-build -W -b html docs build/docs`. The pages read on GitHub as well."""

import importlib.metadata

project = "csoftmax"
copyright = "the csoftmax developers"
release = importlib.metadata.version("csoftmax")
html_title = f"{project} {release}"
html_theme = "furo"

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc lists them
default_role = "py:obj"

nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", "[a-z_]+"),  # parameters and attributes
    ("myst", "/.*"),  # files outside of this folder are links on GitHub and plain text here; the tests look for them
]
