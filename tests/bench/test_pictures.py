"""Tests the bundled sheet of training images, and the font that it was rendered from."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.emoji_sd import font, pictures, train_autoencoder
from bench.emoji_sd.__main__ import main

HAS_FONT = font.open_font() is not None
needs_font = pytest.mark.skipif(not HAS_FONT, reason="Noto Color Emoji is not installed")


def plain(colors: list[str]) -> dict[str, Image.Image]:
    size = (font.PICTURE_SIZE, font.PICTURE_SIZE)
    return {color: Image.new("RGB", size, color) for color in colors}


def same(one: dict[str, Image.Image], other: dict[str, Image.Image]) -> bool:
    """Return whether captions, their order and every pixel are equal."""
    return list(one) == list(other) and all(
        np.array_equal(np.asarray(a), np.asarray(b))
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def test_the_bundled_sheet_holds_captioned_pictures_and_is_small():
    data, captions = pictures.training_set()
    assert data.shape == (360, 3, 64, 64)
    assert data.dtype == torch.float32
    assert (data.min().item(), data.max().item()) == (-1, 1)
    assert len(set(captions)) == 360
    assert {"red apple", "tiger face", "fire engine"} <= set(captions)
    assert (data[:, :, 0, 0] == 1).all(dim=1).float().mean() > 0.9, "glyphs stand on white"
    assert data.flatten(1).unique(dim=0).shape[0] == 360
    assert pictures.SHEET.stat().st_size <= 2 * 2**20


def test_the_sheet_comes_with_the_licence_of_its_font():
    text = (pictures.SHEET.parent / "glyphs.OFL.txt").read_text()
    assert "Noto Color Emoji" in text
    assert "Copyright 2022 Google Inc." in text
    assert "SIL OPEN FONT LICENSE Version 1.1" in text


@pytest.mark.parametrize("count", [1, 3, 20, 21, 45])
def test_a_sheet_reads_back_as_written(tmp_path, count):
    file = tmp_path / "sheet.png"
    glyphs = plain([f"hsl({8 * index}, 90%, 50%)" for index in range(count)])
    pictures.write_sheet(glyphs, "abc", file)
    assert same(pictures.read_sheet(file), glyphs)
    assert pictures.read_font_digest(file) == "abc"


def test_tensors_span_minus_one_to_one():
    data = pictures.as_tensor(list(plain(["black", "white", "red"]).values()))
    assert data[:, :, 5, 9].tolist() == [[-1, -1, -1], [1, 1, 1], [1, -1, -1]]


@needs_font
def test_the_sheet_equals_the_rendered_font():
    if font.digest() != pictures.read_font_digest():
        pytest.skip("another version of Noto Color Emoji is installed")
    assert same(pictures.read_sheet(), font.render_all(font.TRAINING_SET))


@needs_font
def test_the_command_writes_the_sheet(tmp_path, monkeypatch):
    written = tmp_path / "sheet.png"
    monkeypatch.setattr("sys.argv", ["emoji_sd", "sheet", "--to", str(written)])
    main()
    assert same(pictures.read_sheet(written), font.render_all(font.TRAINING_SET))
    assert pictures.read_font_digest(written) == font.digest()


@needs_font
def test_the_autoencoder_trains_on_every_glyph(tmp_path, monkeypatch):
    monkeypatch.setattr(font, "ALL", ((0x1F34E, 0x1F351),))
    train_autoencoder.train(tmp_path / "autoencoder.pt", steps=1)
    vae = train_autoencoder.load(tmp_path / "autoencoder.pt")
    assert 0 < vae.config.scaling_factor < 100


def test_without_the_font_the_error_names_its_package(tmp_path, monkeypatch):
    monkeypatch.setattr(font, "FONT", tmp_path / "missing.ttf")
    assert font.open_font() is None
    with pytest.raises(SystemExit, match="fonts-noto-color-emoji"):
        train_autoencoder.train(tmp_path / "autoencoder.pt", steps=1)
