"""Tests the nodes of both variants, and their guarantees."""

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxcache
from fxcache.codecs.format import CacheFormat
from fxcache.errors import RewriteError
from fxcache.graph_inputs import OutputKind, Sink, note_outputs
from fxcache.rewrite.draft import Draft, Property
from fxcache.rewrite.pass_manager import PassManager
from fxcache.rewrite.passes.clean import own_outputs, remove_dead_nodes
from fxcache.rewrite.passes.read_cache import read_cache
from fxcache.rewrite.passes.write_cache import write_cache
from fxcache.rewrite.verify import verify
from tests import tiny
from tests.engines import variants_of


class Plain(nn.Module):
    """A two-level U-Net that also returns its deep features, in two ways."""

    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.deep = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.leave = nn.Conv2d(8, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("offset", torch.ones(1), persistent=False)

    def forward(self, x: Tensor, t: Tensor, text: Tensor | None = None) -> tuple[Any, ...]:
        skip = self.enter(x) + t * self.offset
        deep = self.drop(self.deep(skip))
        if text is not None:
            deep = deep * text.mean()
        return self.leave(torch.cat([deep, skip], dim=1)), deep, deep.flatten(1), None


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    example = {"x": torch.randn(1, 4, 8, 8), "t": torch.tensor(1.0)}
    capture = fxcache.CaptureConfig(example_inputs=example)
    return fxcache.optimize(Plain().eval(), fxcache.Uniform(3), capture=capture)


def ops(graph: fx.Graph) -> list[str]:
    return [str(n.target) for n in graph.nodes if n.op == "call_function"]


def test_dropout_and_checks_are_removed(plain):
    assert not [
        op for op in ops(variants_of(plain).full.graph) if "dropout" in op or "assert" in op
    ]


def test_reuse_has_no_dead_nodes(plain):
    variants = variants_of(plain)
    assert sum("conv2d" in op for op in ops(variants.full.graph)) == 3
    assert sum("conv2d" in op for op in ops(variants.cached_skip.graph)) == 2
    assert "w_deep_weight" not in dict(variants.cached_skip.named_parameters())


@torch.no_grad()
def test_writing_to_an_output_does_not_reach_the_cache(plain):
    x = torch.randn(1, 4, 8, 8)
    with fxcache.session(plain):
        expected = [v.clone() for v in plain(x, 0.5)[:3]]
        for _ in range(2):
            got = plain(x, 0.5)
            assert got[3] is None
            assert all(torch.equal(a, b) for a, b in zip(got[:3], expected, strict=True))
            for value in got[:3]:
                value.fill_(torch.nan)


@torch.no_grad()
def test_a_second_input_without_a_timestep_name_is_conditioning():
    class TextSecond(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Plain()

        def forward(self, x: Tensor, text: Tensor, step: float) -> Tensor:
            return self.inner(x, step, text)[0]

    model = fxcache.optimize(TextSecond().eval(), policy=fxcache.Uniform(interval=9))
    original = TextSecond().eval()
    original.load_state_dict(model.state_dict())
    x = torch.randn(1, 4, 8, 8)
    for text in (torch.full((1, 3, 2), 5.0), torch.full((1, 3, 2), 4.0)):
        assert torch.equal(model(x, text, 1.0), original(x, text, 1.0))


def test_keyword_order_and_defaults_share_one_capture():
    unet = fxcache.optimize(tiny.small_unet(), fxcache.Uniform(3))
    inputs = tiny.inputs()
    with torch.no_grad(), fxcache.session(unet):
        unet(inputs["sample"], 9, inputs["encoder_hidden_states"])
        unet(
            encoder_hidden_states=inputs["encoder_hidden_states"],
            timestep=8,
            sample=inputs["sample"],
        )
        unet(timestep=7, timestep_cond=None, return_dict=True, **inputs)
    assert len(fxcache.report(unet).captures) == 1


def test_a_defective_rewrite_is_refused(plain):
    program = variants_of(plain).program
    dead = fx.Graph()
    x = dead.placeholder("x")
    dead.call_function(torch.ops.aten.relu.default, (x,))
    dead.output((x,))
    writing = fx.Graph()
    y = writing.placeholder("x")
    writing.output((writing.call_function(torch.ops.aten.relu_.default, (y,)),))
    wrong_notes = fx.Graph()
    wrong_notes.output((wrong_notes.placeholder("x"),))
    note_outputs(wrong_notes, (Sink(OutputKind.RESULT, 0), Sink(OutputKind.CACHED, 0)))
    foreign = fx.Graph()
    foreign.placeholder("x")
    foreign.output((foreign.get_attr("nowhere"),))
    for graph, expected in (
        (dead, "no node reads"),
        (writing, "writes"),
        (wrong_notes, "wrong number of notes"),
        (foreign, "weights that the program lacks"),
    ):
        draft = Draft(program, graph, {}, properties={Property.NO_DEAD_NODES})
        with pytest.raises(RewriteError, match=expected):
            verify(draft, "test", "a pass")


def test_a_pass_must_come_after_what_it_requires():
    with pytest.raises(RewriteError, match="'own outputs' requires: the graph has all its outputs"):
        PassManager([own_outputs(), write_cache({})])
    with pytest.raises(RewriteError, match="no node of the program has been removed"):
        PassManager([read_cache({}, CacheFormat(), None), write_cache({}), remove_dead_nodes()] * 2)


@torch.no_grad()
def test_dumps_are_numbered_python_that_runs(tmp_path, monkeypatch):
    """There is one file after each pass. The last one, with its weights, is the variant."""
    monkeypatch.setenv("FXCACHE_DUMP", str(tmp_path / "graphs"))
    unet, inputs = tiny.small_unet(), {**tiny.inputs(), "timestep": torch.tensor(1)}
    fxcache.optimize(unet, capture=fxcache.CaptureConfig(example_inputs=inputs))
    names = sorted(path.name for path in (tmp_path / "graphs").iterdir())
    assert [int(n.partition("_")[0]) for n in names] == list(range(len(names)))
    passes = [n.partition("full_")[2] for n in names if "full_" in n]
    assert passes[1:3] == ["read_cache.py", "write_cache.py"]
    (last,) = [n for n in names if n.endswith(f"full_{passes[-1]}")]
    source = (tmp_path / "graphs" / last).read_text()
    assert "unet_2d_blocks.py" in source  # the file that a line comes from
    variants = variants_of(unet)
    dumped = loaded(source, variants.full)
    call = [inputs[given.path] for given in variants.program.inputs]
    assert all(map(torch.equal, dumped(*call), variants.full(*call)))


def loaded(source: str, like: fx.GraphModule) -> nn.Module:
    """Return the module that ``source`` defines, with the weights of ``like``."""
    defined: dict[str, Any] = {}
    exec(source, defined)
    (kind,) = (v for v in defined.values() if isinstance(v, type) and issubclass(v, nn.Module))
    module: nn.Module = kind()
    for name, value in [*like.named_parameters(), *like.named_buffers()]:
        setattr(module, name, value)
    return module
