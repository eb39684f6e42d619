"""Tests which files the plugin for a bare machine hides."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import get_data_path

from tests import bare_machine

# Each test reads one file of a system that a bare machine does not have.
PLANTED = """
import io, mmap, os, tokenize
from pathlib import Path

import matplotlib.ft2font
import numpy as np
import pytest
from PIL import Image, ImageFont

SHARE = Path({share!r})
FONT = SHARE / "fonts" / "planted.ttf"
USES = {{
    "open": lambda: open(FONT, "rb").close(),
    "io": lambda: io.FileIO(str(FONT)).close(),
    "bytes": lambda: open(os.fsencode(FONT), "rb").close(),
    "pathlib": FONT.read_bytes,
    "descriptor": lambda: os.close(os.open(FONT, os.O_RDONLY)),
    "link": lambda: Path(__file__).with_name("link.ttf").read_bytes(),
    "relative": lambda: open(os.path.relpath(FONT), "rb").close(),
    "numpy": lambda: np.fromfile(FONT, dtype=np.uint8, count=1),
    "matplotlib": lambda: matplotlib.ft2font.FT2Font(str(FONT)),
    "pillow": lambda: ImageFont.truetype(str(FONT), 12),
    "pillow path": lambda: ImageFont.truetype(FONT, 12),
    "pillow by name": lambda: ImageFont.truetype("planted.ttf", 12),
    "words": lambda: (SHARE / "words").read_text(),
}}

@pytest.mark.parametrize("use", USES)
def test_hidden(use):
    USES[use]()

def test_visible_own_file():
    assert Path(__file__).read_text()

def test_visible_system():
    assert Path("/proc/self/cmdline").read_bytes()
    with open(os.devnull, "rb"), open("/etc/passwd"), tokenize.open(os.__file__):
        pass

def test_visible_descriptor():
    reading, writing = os.pipe()
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == ""

def test_visible_font_of_a_package():
    own = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    ImageFont.truetype(own, 12)
    with open(own, "rb") as file:
        ImageFont.truetype(file, 12)
    ImageFont.load_default(12)

def test_visible_tolerance():
    try:
        FONT.read_bytes()
    except OSError:
        pass
"""
USES = re.findall(r'^    "(.+)": ', PLANTED, re.MULTILINE)


def outcomes(folder: Path, *options: str) -> dict[str, str]:
    """Return the outcome of each planted test by name; ``folder/tmp`` is for temporary files."""
    environment = os.environ | {
        "PYTHONPATH": str(bare_machine.CHECKOUT),
        "PYTEST_ADDOPTS": "",
        "TMPDIR": str(folder / "tmp"),
        "XDG_DATA_DIRS": str(folder / "share"),
    }
    command = [sys.executable, "-m", "pytest", "-rA", "-c", os.devnull, "--rootdir", "."]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", *options, "test_planted.py"],
        cwd=folder / "tmp",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = re.findall(r"^(PASSED|FAILED) \S+::test_(.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return {name: outcome for outcome, name in lines}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    font = tmp_path / "share" / "fonts" / "planted.ttf"
    font.parent.mkdir(parents=True)
    shutil.copy(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", font)
    (tmp_path / "share" / "words").write_text("a")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "link.ttf").symlink_to(font)
    source = PLANTED.format(share=str(tmp_path / "share"))
    (tmp_path / "tmp" / "test_planted.py").write_text(source)
    return tmp_path


def test_each_use_of_a_system_file_fails_its_test(planted):
    without, found = outcomes(planted), outcomes(planted, "-p", "tests.bare_machine")
    assert set(without) == set(found)
    assert set(without.values()) == {"PASSED"}
    failed = {name for name, outcome in found.items() if outcome == "FAILED"}
    assert failed == {f"hidden[{use}]" for use in USES}


@pytest.mark.parametrize(
    ("file", "visible"),
    [
        ("/home/someone/models/unet.safetensors", False),
        ("/usr/share/fonts/truetype/any.ttf", False),
        ("/usr/local/share/fonts/any.ttf", False),
        ("/procession/file", False),
        ("/etc/passwd", True),
        (str(bare_machine.CHECKOUT / "bench" / "missing.png"), True),
        (str(bare_machine.CHECKOUT.parent / "beside.png"), False),
        (os.__file__, True),
        (pytest.__file__, True),
    ],
)
def test_what_is_visible(file, visible, monkeypatch):
    """The temporary folder may be a parent of the checkout, so another one is used here."""
    monkeypatch.setattr("tempfile.tempdir", "/var/tmp/none")
    assert bare_machine.is_visible(file, bare_machine.visible_folders()) == visible
