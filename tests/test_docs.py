"""The README and docs/: their code and their sessions run, and every link inside the repository leads somewhere."""

import os
import re
import shlex
import shutil
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
OPTIONAL = ("dask", "distributed", "matplotlib", "onnxruntime", "pandas", "sklearn")


def blocks(page, language):
    return [code for tag, code in BLOCK.findall(PAGES[page]) if tag == language]


def anchors(page):
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", PAGES[page]), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def run_python(page, folder):
    code = "\n".join(blocks(page, "python"))
    for package in OPTIONAL:
        if re.search(rf"^ *(from|import) {package}\b", code, re.MULTILINE):
            pytest.importorskip(package)
    script = folder / "page.py"
    script.write_text(code, encoding="utf-8")
    command = [sys.executable, "-P", "-W", "error", script]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def said_by(command, folder):
    """What a command of the shell prints."""
    command = re.sub(r"\bcsoftmax (?=[a-z]+ )", f"{shlex.quote(sys.executable)} -P -m csoftmax ", command)
    shell = ["sh", "-ec", command]
    done = subprocess.run(shell, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def in_words(text):
    """Lines in alphabetical order, without the numbers, which differ from run to run, their units and spaces."""
    return sorted(" ".join(re.sub(r"[+-]?\d[\d.,e-]*( [mu]?s\b)?", "#", line).split()) for line in text.splitlines())


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, tmp_path):
    run_python(page, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="commands are those of a POSIX shell")
def test_sessions_in_a_terminal_are_as_shown(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("onnx")
    run_python("docs/command-line.md", tmp_path)
    (tmp_path / "more-wine.csv").write_bytes((tmp_path / "wine.csv").read_bytes())
    for block in blocks("docs/command-line.md", "console") + blocks("README.md", "console"):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = session.partition("\n")
            said = said_by(command, tmp_path)
            assert not shown or in_words(said) == in_words(shown)
    assert {"predicted.csv", "wine.onnx"} <= set(os.listdir(tmp_path))


@pytest.mark.skipif(sys.platform == "win32", reason="commands are those of a POSIX shell")
@pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="no make, or no C compiler")
def test_the_c_of_a_page_compiles_and_runs(tmp_path):
    run_python("docs/exporting.md", tmp_path)
    (make,), (code,) = blocks("docs/exporting.md", "sh"), blocks("docs/exporting.md", "c")
    assert re.search(r"^setosa 0\.\d+ ", said_by(make, tmp_path), re.MULTILINE)
    (tmp_path / "own.c").write_text(code, encoding="utf-8")
    assert said_by("cc -Iiris own.c iris/iris.c -lm -o own && ./own", tmp_path).startswith("setosa\nsetosa 0.9")


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
