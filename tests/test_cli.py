"""Tests the commands as a shell calls them, on a pipeline folder."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

import fxcache
from fxcache.cli import main
from fxcache.pipelines.drawing import Drawing
from fxcache.runtime.module import engine_of
from tests import tiny

pytestmark = pytest.mark.usefixtures("shared_captures")

ROOT = Path(__file__).parents[1]
BUNDLED = ROOT / "bench" / "models" / "emoji-sd"
BUNDLED_DIT = ROOT / "bench" / "models" / "emoji-dit"
DRAW = ["--prompt", "a cat", "--prompt", "a dog", "--steps", "6"]
BAD = [*DRAW, "--out", "{folder}/bad.png"]
TUNED = ["--prompts", "prompts.txt", "--speedup", "2", "--steps", "3", "--out", "plan.json"]
CALIBRATED = ["--prompts", "prompts.txt", "--policy", "magcache", "--out", "plan.json"]


def said(capsys: Any, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def complaint(capsys: Any, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 1
    return capsys.readouterr().err


def test_inspect_takes_a_file_a_model_and_a_pipeline(capsys, folder):
    texts = {
        said(capsys, "inspect", path)
        for path in (folder, folder / "unet", folder / "unet" / "config.json")
    }
    (text,) = texts
    assert "UNet2DConditionModel" in text
    assert "up_blocks.1.attentions.0" in text
    assert "%" in text


def test_inspect_in_json_prices_every_cut(capsys, folder):
    data = json.loads(said(capsys, "inspect", folder, "--json", "--batch", 2))
    assert [cut["skip_index"] for cut in data["cuts"]] == [0, 1, 2, 3]
    cut = data["cuts"][0]
    assert sum(cut["reuse_flops_by_op"].values()) == cut["reuse_flops"] < cut["full_flops"]
    one = json.loads(said(capsys, "inspect", folder, "--json"))["cuts"][0]
    assert cut["cache_bytes"] == 2 * one["cache_bytes"]


def test_inspect_reports_a_model_without_cuts(capsys, folder, monkeypatch):
    monkeypatch.setattr("fxcache.commands.inspect.list_cuts", lambda *_, **__: [])
    assert "AutoencoderKL has no possible cut" in said(capsys, "inspect", folder / "vae")


def test_run_and_compare_write_both_rows(capsys, folder, tmp_path):
    out = tmp_path / "new" / "both.png"
    text = said(
        capsys, "run", folder, *DRAW, "--interval", 3, "--cut", 0, "--compare", "--out", out
    )
    for expected in (
        "refresh step",
        "reuse step",
        "speed-up",
        "ideal",
        "PSNR",
        "SSIM",
        "took turns",
    ):
        assert expected in text
    with Image.open(out) as picture:
        width, height = picture.size
    assert width >= 2 * 128
    assert height >= 2 * 128


def test_compare_in_json_is_consistent(capsys, folder, tmp_path):
    out = tmp_path / "both.png"
    options = [*DRAW, "--compare", "--rounds", 2, "--out", out, "--json", "--hoist", "none"]
    data = json.loads(said(capsys, "run", folder, *options, "--interval", 3))
    assert (data["steps"], data["refreshes"]) == (6, 2)
    assert data["ideal_speedup"] == pytest.approx(6 / (2 + 4 * (1 - data["share_saved"])))
    assert data["pairs"] == 2
    assert 0 < data["speedup_low"] < data["speedup"] < data["speedup_high"]
    assert data["speedup"] == pytest.approx((data["speedup_low"] + data["speedup_high"]) / 2)
    exact = json.loads(said(capsys, "run", folder, *options, "--interval", 1))
    assert (exact["psnr_db"], exact["ssim"], exact["ideal_speedup"]) == (100.0, 1.0, 1.0)


def test_pairs_take_turns_and_stop_in_time(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fxcache.pipelines.pairs.PAIRS_S", 0)
    drawn: list[tuple[int, bool]] = []

    def noting(self: Drawing, pipeline: Any, steps: int, **options: Any) -> object:
        drawn.append((steps, engine_of(pipeline.unet) is not None))
        return draw(self, pipeline, steps, **options)

    draw = Drawing.draw
    monkeypatch.setattr(Drawing, "draw", noting)
    options = [*DRAW, "--compare", "--out", tmp_path / "a.png"]
    first_runs, pair = [(2, False), (2, True)], [(6, False), (6, True)]
    assert "n=1: " in said(capsys, "run", folder, *options)
    assert drawn == [*first_runs, *pair], "a pair is made in any case"
    drawn.clear()
    said(capsys, "run", folder, *options, "--rounds", 2)
    assert drawn == [*first_runs, *pair, *reversed(pair)]


def test_a_saved_report_can_be_shown_again(capsys, folder, tmp_path):
    saved = tmp_path / "report.json"
    text = said(
        capsys, "run", folder, *DRAW, "--out", tmp_path / "a.png", "--report", saved, "--center", 3
    )
    assert "NonUniform" in text
    assert said(capsys, "report", saved).strip() in text


def test_the_report_of_a_pipeline_with_two_denoisers_has_both(tmp_path):
    class Twins(StableDiffusionPipeline):
        """A pipeline with a second denoiser, as Wan's experts are."""

        @property
        def components(self) -> dict[str, Any]:
            return {**super().components, "unet_2": second}

    pipe, second = tiny.pipeline(), tiny.small_unet()
    pipe.__class__ = Twins
    _, reported = Drawing(["a cat"], 3).cached(pipe)
    assert isinstance(reported, fxcache.PipelineReport)
    assert list(reported.components) == ["unet", "unet_2"]
    assert reported["unet"].runs[-1].steps == 3


def test_options_of_optimize(capsys, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fxcache.partition.partial.FLOPS_PER_BYTE", 0)  # this model is tiny

    def drawn(*options: str) -> dict[str, Any]:
        out = tmp_path / "a.png"
        return json.loads(said(capsys, "run", folder, *DRAW, "--out", out, "--json", *options))

    plain = drawn("--cut", "0", "--kernels", "--hoist", "none")
    eight_bits = drawn("--cut", "0", "--cache-dtype", "int8")
    assert 0.25 < eight_bits["cached_bytes"] / plain["cached_bytes"] < 0.3
    options = ("--hoist", "table", "--offload", "--partial-evaluation")
    lighter = drawn("--cut", "0", *options)
    assert lighter["runs"][-1]["tabulated"] == list(range(6))
    (before,), (after,) = plain["captures"], lighter["captures"]
    assert after["cut"]["reuse_flops"] < before["cut"]["reuse_flops"]
    assert after["hoisted_weight_bytes"] > 0 == before["hoisted_weight_bytes"]
    assert any(variant["kernels"] for variant in before["variants"])
    assert not any(variant["kernels"] for variant in after["variants"])


def test_env_names_versions(capsys):
    assert json.loads(said(capsys, "env", "--json"))["torch"]
    assert "torch" in said(capsys, "env")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["inspect", "{folder}/nowhere.json"], "no such file or folder"),
        (["inspect", "some/mistyped/path"], "no such file or folder"),
        (["inspect", "./nowhere"], "no such file or folder"),
        (["inspect", "~/nowhere"], "no such file or folder"),
        (["inspect", "models/nowhere"], "no such file or folder"),
        (["inspect", "{folder}/tokenizer"], "no configuration of a denoiser"),
        (["inspect", "{folder}/tokenizer/tokenizer.json"], "not a model of diffusers"),
        (["inspect", "{folder}", "--batch", "0"], "below 1"),
        (["run", "{folder}/nowhere", *BAD], "no such file or folder"),
        (["run", "{folder}/unet", *BAD], "diffusers cannot load"),
        (["run", "{folder}", *BAD, "--interval", "0"], "interval=0"),
        (["run", "{folder}", *BAD, "--steps", "0"], "steps=0"),
        (["run", "{folder}", *BAD, "--compare", "--report", "a.json"], "no report"),
        (["run", "{folder}", *BAD, "--rounds", "2"], "pass --compare too"),
        (["run", "{folder}", *BAD, "--plan", "plan.json", "--interval", "9"], "has its schedule"),
        (["run", "{folder}", *BAD, "--power", "2"], "no power"),
        (["run", "{folder}", *BAD, "--hoist", "none", "--offload"], "reads all weights"),
        (["run", "{folder}", *BAD, "--out", "a.xyz"], "names no known file type"),
        (["run", "{folder}", *BAD, "--device", "gpu"], "no such device"),
        (["run", "{folder}", *BAD, "--device", "xpu"], "no such device"),
        (["tune", "{folder}", *TUNED, "--picture", "a.xyz"], "names no known file type"),
        (["strip", "plan.json", "--out", "a.xyz"], "names no known file type"),
        (["calibrate", "{folder}", *CALIBRATED, "--option", "treshold=1"], "ratios, retention"),
        (["run", "{folder}", *BAD, "--cut", "99"], "no skip index 99"),
        (["run", "{folder}", *BAD, "--cut", "up_blocks.9"], "up_blocks.1"),
        (["report", "{folder}/model_index.json"], "not an fxcache report"),
        (["report", "{folder}/tokenizer/tokenizer_config.json"], "not an fxcache report"),
        (["report", "nowhere"], "cannot be read: No such file or directory"),
        (["report", "{folder}"], "cannot be read"),
        (["report", "{folder}/unet/diffusion_pytorch_model.safetensors"], "not JSON"),
    ],
)
def test_errors_are_printed_once(capsys, folder, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "prompts.txt").write_text("a cat\n")
    message = complaint(capsys, *(a.format(folder=folder) for a in arguments))
    assert expected in message
    assert "remedy:" in message


def test_a_stopped_calibration_says_how_to_continue(capsys, folder, tmp_path, monkeypatch):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat\na dog\n")
    drawn: list[int] = []

    def stopping(self: Drawing, pipeline: object, steps: int, **options: Any) -> object:
        drawn.append(steps)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(self, pipeline, steps, **options)

    draw = Drawing.draw
    monkeypatch.setattr(Drawing, "draw", stopping)
    command = ["calibrate", str(folder), "--policy", "magcache", "--prompts", str(prompts)]
    command += ["--steps", "3", "--batch", "1", "--out", str(tmp_path / "plan.json")]
    assert main(command) == 130
    assert "run the same command to continue after the last batch" in capsys.readouterr().err
    assert main(command) == 0
    assert len(drawn) == 3, "the first batch was kept"


@pytest.mark.filterwarnings("ignore:The .local_dir_use_symlinks. argument:UserWarning")
def test_a_possible_hub_id_is_looked_up(capsys):
    message = complaint(capsys, "inspect", "nobody/nothing")
    assert "this is neither a file, a folder nor a readable hub id" in message


def test_the_bundled_model_fits_and_loads(capsys):
    files = [f for f in BUNDLED.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 16 * 2**20
    data = json.loads(said(capsys, "inspect", BUNDLED, "--json"))
    assert len(data["cuts"]) == 9
    assert data["cuts"][0]["share_saved"] > 0.8


def test_the_cached_bundled_model_stays_close(capsys, tmp_path):
    data = json.loads(
        said(
            capsys, "run", BUNDLED, "--prompt", "red apple", "--steps", 30, "--interval", 3,
            "--compare", "--rounds", 1, "--out", tmp_path / "apple.png", "--json",
        )
    )  # fmt: skip
    assert data["refreshes"] == 10
    assert data["psnr_db"] > 25
    assert data["ssim"] > 0.9


def test_a_pipeline_of_classes_draws_them_by_name(capsys, tmp_path):
    data = json.loads(
        said(
            capsys, "run", BUNDLED_DIT, "--prompt", "tiger face", "--steps", 30, "--interval", 3,
            "--compare", "--rounds", 1, "--out", tmp_path / "tiger.png", "--json",
        )
    )  # fmt: skip
    assert data["refreshes"] == 10
    assert data["psnr_db"] > 25
    assert data["ssim"] > 0.9


def test_an_unknown_class_names_the_nearest_one(capsys, tmp_path):
    out = tmp_path / "a.png"
    message = complaint(capsys, "run", BUNDLED_DIT, "--prompt", "tigger face", "--out", out)
    assert "'tigger face' is not a class" in message
    assert "remedy: similar classes: tiger face, " in message


def test_the_blocks_of_a_pipeline_of_classes_are_priced(capsys):
    data = json.loads(said(capsys, "inspect", BUNDLED_DIT, "--json", "--batch", 2))
    assert len(data["cuts"]) == 10
    assert data["cuts"][0]["cache_bytes"] == 2 * 64 * 160 * 4


def test_a_missing_library_is_named_with_its_remedy(capsys, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert main(["inspect", str(folder / "unet")]) == 1
    assert "pip install 'fxcache[diffusers]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_a_wrong_image_suffix_is_refused_before_sampling(
    capsys, folder, tmp_path, monkeypatch, name
):
    monkeypatch.setattr("fxcache.commands.options.load_pipeline", None)
    message = complaint(capsys, "run", folder, *DRAW, "--out", tmp_path / name)
    assert "end the name in one of: .png" in message
    assert not list(tmp_path.iterdir())


def test_a_missing_report_names_the_command_that_writes_it(capsys, tmp_path):
    message = complaint(capsys, "report", tmp_path / "nowhere.json")
    assert "remedy: pass a file written by `fxcache run --report FILE`" in message


@pytest.mark.parametrize(
    ("command", "defaults"),
    [("run", ["50", "1.4", "auto", "0", "float32", "fxcache.png"]), ("inspect", ["1"])],
)
def test_help_shows_the_defaults(capsys, command, defaults):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert all(f"(default: {default})" in text for default in defaults)


def test_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "fxcache.cli", "env"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == version("fxcache")
