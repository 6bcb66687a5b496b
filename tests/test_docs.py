"""The README and docs/: every block of Python runs, and every link inside the repository leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_cython_api import EXAMPLE

import csoftmax

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not here: the tests run away from the sources", allow_module_level=True)

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in (".", "docs", "benchmarks", "examples/service")
    for path in sorted((ROOT / folder).glob("*.md"))
}
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the blocks may use and the tests do not always have: a page that imports one of them is skipped without it.
OPTIONAL = ("dask", "distributed", "matplotlib", "onnxruntime", "sklearn")


def blocks(page, language):
    return [code for tag, code in BLOCK.findall(PAGES[page]) if tag == language]


def anchors(page):
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", PAGES[page]), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, tmp_path):
    code = "\n".join(blocks(page, "python"))
    for package in OPTIONAL:
        if re.search(rf"^ *(from|import) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    script = tmp_path / "page.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-P", "-W", "error", script]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_cython_of_the_readme_is_what_is_compiled():
    assert blocks("README.md", "cython") == [EXAMPLE]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", PAGES[page])):
        if re.match("https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert file.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(file.relative_to(ROOT).as_posix()), f"{target}: no such heading"


def test_the_reference_has_every_public_name():
    documented = re.findall(r"^\.\. auto\w+:: (?:csoftmax\.)?([\w.]+)", PAGES["docs/api.md"], re.MULTILINE)
    assert {*csoftmax.__all__, "dask.DaskSoftmaxRegression", "export", "plot"} <= set(documented)
