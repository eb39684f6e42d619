"""Tests that an artifact runs in place of a module that a host has loaded."""

from pathlib import Path

import pytest
import torch
from torch import nn

import fxcache
from fxcache.adapters.host import load_into
from tests.deploy.test_round_trip import denoised
from tests.engines import variants_of
from tests.loops import refreshes
from tests.plain import dit, dit_inputs

pytestmark = pytest.mark.usefixtures("shared_captures")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An artifact without weights in the folder ``package``, as a repository has it."""
    model = fxcache.optimize(dit(3), fxcache.Uniform(3))
    denoised(model)
    return fxcache.export(model, tmp_path / "package", weights=False)


def expected() -> list[torch.Tensor]:
    return denoised(fxcache.optimize(dit(3), fxcache.Uniform(3)))


def test_the_module_computes_what_the_artifact_computes(package):
    module = dit(3)
    loaded = load_into(module, package)
    assert all(map(torch.equal, denoised(module), expected()))
    assert refreshes(loaded) == [[0, 3, 6]]
    shared = dict(loaded.named_parameters())
    held = variants_of(loaded).program.weights
    assert all(w is shared[n] and w is held[n] for n, w in module.named_parameters())
    assert not [name for name, child in module.named_modules() if child is loaded]


def doubled(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: 2 * weight for name, weight in module.state_dict().items()}


def replaced(module: nn.Module) -> None:
    module.load_state_dict(doubled(module), assign=True)


def moved(module: nn.Module) -> None:
    """Moves the module, as between a CPU and a GPU: ``to`` makes new parameters for meta."""
    state = doubled(module)
    module.to("meta").to_empty(device="cpu").load_state_dict(state)


@pytest.mark.parametrize("change", [replaced, moved])
def test_the_artifact_follows_the_weights_of_the_module(package, change):
    module, same = dit(3), dit(3)
    load_into(module, package)
    before = denoised(module)
    change(module)
    change(same)
    found = denoised(module)
    assert not torch.equal(found[-1], before[-1])
    assert all(map(torch.equal, found, denoised(fxcache.optimize(same, fxcache.Uniform(3)))))


@torch.no_grad()
def test_the_artifact_follows_the_module_to_another_device(package):
    module = dit(3)
    loaded = load_into(module, package)
    on_meta = {name: value.to("meta") for name, value in dit_inputs().items()}
    module.to("meta")
    assert loaded.device.type == "meta"
    assert module(timestep=torch.tensor(9.0, device="meta"), **on_meta).is_meta


def test_other_weights_are_refused(package):
    with pytest.raises(fxcache.ArtifactError):
        load_into(dit(2), package)
    with pytest.raises(fxcache.ArtifactError):
        load_into(nn.Linear(2, 2), package)


@pytest.mark.skipif(torch.version.cuda is None, reason="spaces needs a CUDA build of torch")
def test_the_package_spaces_loads_an_artifact(package, monkeypatch):
    """Hugging Face's own function calls the loader. Only the download is replaced."""
    aoti = pytest.importorskip("spaces.zero.torch.aoti")
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: str(package.parent))
    module = dit(3)
    aoti.aoti_load(module, "somebody/artifact", aoti_loader=load_into)
    assert all(map(torch.equal, denoised(module), expected()))
