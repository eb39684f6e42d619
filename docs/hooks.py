"""What MkDocs does besides: pages from outside ``docs``, and links that work on GitHub as well."""

import re
from pathlib import Path
from posixpath import relpath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Files outside docs/, and the pages that show them.
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "bench/README.md": "bench.md",
    "kernels/README.md": "kernels.md",
}
LINK = re.compile(r"(?P<text>!?\[[^]]*\])\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside ``docs``."""
    for source, page in PAGES.items():
        if files.get_file_from_path(page) is None:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Point relative links, which are to files of the repository, to the pages that show them."""
    sources = {page: ROOT / source for source, page in PAGES.items() if page != "index.md"}
    source = sources.get(page.file.src_uri, DOCS / page.file.src_uri)
    code = [found.span() for found in CODE.finditer(markdown)]

    def rewritten(link: re.Match[str]) -> str:
        if any(start <= link.start() < end for start, end in code):
            return link[0]
        return in_site(link, source, page.file.src_uri, files)

    return LINK.sub(rewritten, markdown)


def in_site(link: re.Match[str], source: Path, page: str, files: Files) -> str:
    """The link as it is on the site; plain text where the site does not show the file."""
    target, _, anchor = link["target"].partition("#")
    file = (source.parent / target).resolve()
    if not target or ":" in target or not file.exists() or not file.is_relative_to(ROOT):
        return link[0]
    file = file / "README.md" if file.is_dir() else file
    shown = PAGES.get(file.relative_to(ROOT).as_posix())
    if shown is None and file.is_relative_to(DOCS):
        shown = file.relative_to(DOCS).as_posix()
    if shown is None or files.get_file_from_path(shown) is None:
        return link["text"].strip("![]")
    relative = relpath(shown, Path(page).parent.as_posix())
    return f"{link['text']}({relative}#{anchor})" if anchor else f"{link['text']}({relative})"
