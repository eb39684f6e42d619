"""Tests that documents name only existing links, names, options, commands, files and tests."""

import ast
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fxcache
from fxcache.cli import COMMANDS

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "bench", "kernels")
FILES = sorted([*ROOT.glob("*.md"), *(f for name in FOLDERS for f in (ROOT / name).rglob("*.md"))])
DOCUMENTS = pytest.mark.parametrize("document", FILES, ids=lambda f: str(f.relative_to(ROOT)))
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PATH = re.compile(
    r"^(?:fxcache|tests|bench|docs|kernels|runtime|rewrite|capture|analysis|partition|calibration)/[\w/.-]*\w$"
)


def prose(document: Path) -> str:
    """The text of ``document`` without its code."""
    return INLINE.sub("", FENCED.sub("", document.read_text()))


def inline_code(document: Path) -> list[str]:
    return INLINE.findall(FENCED.sub("", document.read_text()))


def code(document: Path) -> list[str]:
    """All code of ``document``: blocks and parts of lines."""
    return [body for _, body in FENCED.findall(document.read_text())] + inline_code(document)


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def calls(text: str) -> Iterator[ast.Call]:
    """Yield the calls in ``text``; none if it is not Python."""
    try:
        tree = ast.parse(text.replace("…", "..."))
    except SyntaxError:
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def public_name(call: ast.Call) -> str | None:
    """Return the called name in ``fxcache``, with or without the prefix ``fxcache.``."""
    parts = ast.unparse(call.func).removeprefix("fxcache.")
    return parts if parts in fxcache.__all__ else None


@DOCUMENTS
def test_links_and_anchors_resolve(document):
    for link in LINK.findall(prose(document)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@DOCUMENTS
def test_python_names_exist(document):
    for text in code(document):
        for name in re.findall(r"(?<![\w/.])fxcache(?:\.[A-Za-z_]\w*)+", text):
            pkgutil.resolve_name(name)


@DOCUMENTS
def test_keywords_exist(document):
    for text in code(document):
        for call in calls(text):
            if (name := public_name(call)) is None:
                continue
            parameters = inspect.signature(getattr(fxcache, name)).parameters.values()
            if any(p.kind is p.VAR_KEYWORD for p in parameters):
                continue
            named = {keyword.arg for keyword in call.keywords} - {None}
            assert named <= {p.name for p in parameters}, ast.unparse(call)


@DOCUMENTS
def test_modules_that_are_run_exist(document):
    for text in code(document):
        for module in re.findall(r"python -m ((?:bench|fxcache|tests)[\w.]*)", text):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


@DOCUMENTS
def test_make_targets_exist(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in code(document):
        named = re.findall(r"^\s*make ([a-z][a-z-]*)", text, re.MULTILINE)
        assert targets.issuperset(named), text


@DOCUMENTS
def test_commands_exist(document):
    for text in code(document):
        named = re.findall(r"^\s*(?:\S*/)?fxcache ([a-z]\w*)", text, re.MULTILINE)
        assert COMMANDS.keys() >= set(named), text


@DOCUMENTS
def test_files_exist(document):
    for path in filter(PATH.match, inline_code(document)):
        assert any((root / path).exists() for root in (ROOT, ROOT / "fxcache")), path


def test_tests_of_pipelines_exist():
    source = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(
        r"\btest_\w+(?![\w.*])", " ".join(inline_code(ROOT / "docs/features.md"))
    ):
        assert f"def {name}(" in source, name


def test_decisions_are_numbered():
    files = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [int(f.name[:4]) for f in files] == list(range(1, len(files) + 1))
    listed = (ROOT / "docs/adr/README.md").read_text()
    for number, file in enumerate(files, 1):
        heading, _, _ = file.read_text().partition("\n")
        _, marked, title = heading.partition(f"# {number}. ")
        assert marked, file.name
        assert f"| {number} | [{title}]({file.name}) |" in listed, file.name


def test_the_reference_shows_every_public_name_once():
    pages = "\n".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.md"))
    shown = re.findall(r"^::: (fxcache\.[\w.]+)$", pages, re.MULTILINE)
    # The tool would take the package of this name for the function.
    assert "fxcache.report" not in shown
    names = [path.rpartition(".")[2] for path in shown]
    assert len(names) == len(set(names))
    assert set(fxcache.__all__) <= set(names)


def test_every_page_is_in_the_navigation_of_the_site():
    """``make docs`` fails otherwise, which ``make test`` does not run."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(f.relative_to(ROOT / "docs")) for f in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if page not in navigation]
