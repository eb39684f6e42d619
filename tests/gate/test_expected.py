"""Tests the file of expected values."""

import json
from pathlib import Path

import pytest
import torch

import fxcache
from fxcache.gate.config import GateConfig
from fxcache.gate.expected import Expected, as_json, expected_file, minor_version


def test_a_file_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "folder" / "expected.json"
    written = Expected.for_here("cpu")
    written.update("model", {"exact": {"flops": 3}, "advisory": {"a CPU": {}}}, "first")
    written.update("model", {"exact": {"flops": 4, "nodes": 5}}, "a new operator")
    written.save(file)
    read = Expected.load(file, "cpu")
    assert read.cases == {"model": {"exact": {"flops": 4, "nodes": 5}, "advisory": {"a CPU": {}}}}
    first, second = read.updates
    assert (first.reason, first.changed) == ("first", {})
    assert (second.reason, second.changed) == (
        "a new operator",
        {"flops": [3, 4], "nodes": [None, 5]},
    )


def test_times_of_other_devices_stay():
    expected = Expected.for_here("cpu")
    for device in ("one", "two"):
        expected.update("model", {"advisory": {device: {"reuse": 1}}}, device)
    assert set(expected.cases["model"]["advisory"]) == {"one", "two"}


def test_the_file_is_readable():
    text = as_json({"refreshes": [0, 3], "runs": [{"steps": 5}], "names": ["a", "b [ c ]"]})
    assert '"refreshes": [0, 3]' in text
    assert json.loads(text)["names"] == ["a", "b [ c ]"]


def test_a_file_that_does_not_exist_has_no_values(tmp_path):
    assert Expected.load(tmp_path / "none.json", "cpu").cases == {}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"fxcache_expected": 2}', '{"fxcache_expected": 1}']
)
def test_another_file_is_refused(tmp_path, content):
    file = tmp_path / "expected.json"
    file.write_text(content)
    with pytest.raises(fxcache.ModelFileError, match="no file of expected values"):
        Expected.load(file, "cpu")


@pytest.mark.parametrize(("version", "device"), [("1.0", "cpu"), (minor_version(), "cuda")])
def test_values_of_another_torch_or_device_are_refused(tmp_path, version, device):
    file = tmp_path / "expected.json"
    Expected(version, device).save(file)
    with pytest.raises(fxcache.ConfigError, match=r"expected-torch\{torch\}-\{device\}\.json"):
        Expected.load(file, "cpu")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(fxcache.ModelFileError, match="cannot be written"):
        Expected.for_here("cpu").save(tmp_path / "file" / "expected.json")


def test_names_have_the_version_and_the_device():
    version = ".".join(torch.__version__.split(".")[:2])
    assert expected_file("a-{torch}-{device}.json", "cuda") == Path(f"a-{version}-cuda.json")


@pytest.mark.parametrize(
    "options", [{"tiers": ()}, {"tiers": ("exact", "all")}, {"rounds": 5}, {"margin": -0.1}]
)
def test_options_are_checked(options):
    with pytest.raises(fxcache.ConfigError):
        GateConfig(**options)
