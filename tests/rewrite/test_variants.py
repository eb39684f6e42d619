"""The two graphs themselves: what is in them, what is not, and what they may not do."""

import pytest
import torch
from torch import Tensor, fx, nn

import fxcache
from fxcache.errors import RewriteError
from fxcache.rewrite.runner import Variants
from fxcache.rewrite.verify import verify
from fxcache.runtime.module import engine_of
from tests import tiny


class Plain(nn.Module):
    """A two-level U-Net that also returns its deep features, in two ways."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.deep = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.leave = nn.Conv2d(8, 4, 1)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("offset", torch.ones(1), persistent=False)

    def forward(self, x: Tensor, t: Tensor, text: Tensor | None = None) -> tuple[Tensor, ...]:
        skip = self.enter(x) + t * self.offset
        deep = self.drop(self.deep(skip))
        if text is not None:
            deep = deep * text.mean()
        return self.leave(torch.cat([deep, skip], dim=1)), deep, deep.flatten(1), None


def variants_of(model: nn.Module) -> Variants:
    engine = engine_of(model)
    assert engine is not None
    (variants,) = engine.captures.values()
    return variants


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    example = {"x": torch.randn(1, 4, 8, 8), "t": torch.tensor(1.0)}
    return fxcache.optimize(Plain().eval(), capture=fxcache.CaptureConfig(example_inputs=example))


def ops(graph: fx.Graph) -> list[str]:
    return [str(n.target) for n in graph.nodes if n.op == "call_function"]


def test_dropout_and_checks_are_gone(plain):
    assert not [
        op for op in ops(variants_of(plain).full.graph) if "dropout" in op or "assert" in op
    ]


def test_reuse_drops_what_only_the_cut_needed(plain):
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
def test_a_second_input_that_is_no_timestep_is_conditioning():
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
    unet = fxcache.optimize(tiny.small_unet())
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
    variants = variants_of(plain)
    dead = fx.Graph()
    x = dead.placeholder("x")
    dead.call_function(torch.ops.aten.relu.default, (x,))
    dead.output((x,) * 4)
    writing = fx.Graph()
    y = writing.placeholder("x")
    writing.output((writing.call_function(torch.ops.aten.relu_.default, (y,)),) * 4)
    short = fx.Graph()
    short.output((short.placeholder("x"),))
    for graph, expected in ((dead, "nothing reads"), (writing, "writes"), (short, "fewer")):
        with pytest.raises(RewriteError, match=expected):
            verify(graph, variants.program, "test", variants.num_outputs)


def test_dumps_are_numbered_python(tmp_path, monkeypatch):
    monkeypatch.setenv("FXCACHE_DUMP", str(tmp_path / "graphs"))
    for _ in range(2):
        fxcache.optimize(
            tiny.small_unet(),
            capture=fxcache.CaptureConfig(example_inputs={**tiny.inputs(), "timestep": 1}),
        )
    names = sorted(path.name for path in (tmp_path / "graphs").iterdir())
    assert [n.partition("_")[0] for n in names] == ["000", "001", "002", "003"]
    for path in (tmp_path / "graphs").iterdir():
        source = path.read_text()
        compile(source, path, "exec")
        assert "unet_2d_blocks.py" in source  # the file that a line comes from
