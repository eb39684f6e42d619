"""Tests defects that attacks on capture found. Each compares with an untouched twin."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.plain import DiT, dit_inputs

EVERY = fxcache.Uniform(interval=1)


class Sizes(nn.Module):
    """Branches on comparisons of its sizes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Conv2d(4, 8, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        height, width = sample.shape[2:]
        factor = (3.0 if height > width else 1.0) + (height % 4 == 0)
        x = self.enter(sample) * (1 + timestep / 1000)
        for block in self.blocks:
            x = x + block(x) * factor
        return self.leave(x) + text.mean()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::fxcache.FxcacheWarning")
def test_dynamic_sizes_keep_the_models_comparisons():
    model, plain = Sizes().eval(), Sizes().eval()
    open_sizes = {"sample": (0, 2, 3), "text": (1,)}
    fxcache.optimize(
        model,
        policy=EVERY,
        cut=("blocks.0", "blocks.2"),
        capture=fxcache.CaptureConfig(dynamic=open_sizes),
    )
    for height, width in ((16, 12), (20, 12), (8, 16), (12, 12), (18, 12), (24, 4)):
        sample, text = torch.randn(2, 4, height, width), torch.randn(2, 5, 16)
        t = torch.tensor(500.0)
        assert torch.equal(model(sample, t, text), plain(sample, t, text)), (height, width)


class Written(DiT):
    """Reads a length from a buffer to which the mask was written."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> Tensor:
        kept = torch.zeros(5)
        match self.way:
            case "index":
                kept[mask > 0] = 1.0
            case "slice":
                kept[:5] = mask
            case "view":
                kept[0:5].copy_(mask)
        return super().forward(sample, timestep, text[:, : int(kept.sum())])


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize("way", ["index", "slice", "view"])
def test_values_written_in_place_keep_their_sources(way):
    model, plain, inputs = Written(way).eval(), Written(way).eval(), dit_inputs()
    fxcache.optimize(model, policy=EVERY)
    for length in (5, 2):
        mask = (torch.arange(5) < length).float()
        got = model(inputs["sample"], 900.0 - length, inputs["text"], mask)
        t = torch.tensor(900.0 - length)
        assert torch.equal(got, plain(inputs["sample"], t, inputs["text"], mask))


class Aliased(DiT):
    """Writes values of the latent through an alias of the mask's copy."""

    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> Tensor:
        kept = mask.clone()
        kept.view_as(sample[0, :5, 0]).mul_(sample[0, :5, 0])
        return super().forward(sample, timestep, text * 2 if kept.sum() > 2.5 else text)


@torch.no_grad()
def test_an_alias_made_with_an_unknown_tensor_is_not_trusted():
    model, inputs = fxcache.optimize(Aliased().eval(), fxcache.Uniform(3)), dit_inputs()
    with pytest.raises(fxcache.CaptureError):
        model(inputs["sample"], 900.0, inputs["text"], torch.ones(5))


class Masked(DiT):
    def forward(  # type: ignore[override]
        self, sample: Tensor, timestep: Tensor, text: Tensor, mask: Tensor
    ) -> Tensor:
        return super().forward(sample, timestep, text[:, : int(mask.sum())])


@torch.no_grad()
def test_a_mask_written_by_numpy_is_read_again():
    model, plain, inputs = Masked().eval(), Masked().eval(), dit_inputs()
    fxcache.optimize(model, policy=EVERY)
    array = np.ones(5, dtype=np.float32)
    mask = torch.from_numpy(array)
    for timestep in (900.0, 800.0):
        got = model(inputs["sample"], timestep, inputs["text"], mask)
        expected = plain(inputs["sample"], torch.tensor(timestep), inputs["text"], mask)
        assert torch.equal(got, expected)
        array[2:] = 0


class Kept:
    """Stores its frequencies, as some models do."""

    table: Tensor | None = None

    def __call__(self, length: int) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0, 1, length)
        return self.table


class Keeping(DiT):
    shared: dict[int, Tensor] = {}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, Any] = {"rope": Kept(), "cpu": {}}
        self.done: set[int] = set()
        self.scale = torch.zeros(4)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        channels = sample.shape[-1]
        if channels not in self.done:
            self.done.add(channels)
            self.scale = torch.linspace(0, 1, channels)
        for cache in (self.held["cpu"], self.shared):
            if channels not in cache:
                cache[channels] = torch.linspace(1, 2, channels)
        factor = self.held["rope"](channels) * self.held["cpu"][channels] * self.shared[channels]
        return super().forward(sample, timestep, text) * factor * self.scale


@torch.no_grad()
def test_no_value_of_the_trace_stays_in_containers():
    inputs = {**dit_inputs(), "timestep": torch.tensor(900.0)}
    model, plain = fxcache.optimize(Keeping().eval(), policy=EVERY), Keeping().eval()
    for batch in (2, 3):
        inputs |= dit_inputs(batch)
        got = model(**inputs)
        assert {type(kept) for kept in Keeping.shared.values()} <= {Tensor}
        assert torch.equal(got, plain(**inputs))
        Keeping.shared.clear()
    fxcache.restore(model)
    assert type(model(**inputs)) is Tensor
    assert torch.equal(model(**inputs), plain(**inputs))
    Keeping.shared.clear()


class Flagged(DiT):
    """Has settings in a plain tensor and in a set."""

    def __init__(self) -> None:
        super().__init__()
        self.flag, self.options = torch.tensor(1.0), {"a"}

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        return super().forward(sample, timestep, text) * float(self.flag) * len(self.options)


@torch.no_grad()
@pytest.mark.parametrize("change", ["tensor", "set"])
def test_settings_in_tensors_and_sets_are_compared(change):
    model, plain, inputs = Flagged().eval(), Flagged().eval(), dit_inputs()
    fxcache.optimize(model, policy=EVERY)
    for timestep in (900.0, 1000.0):
        expected = plain(timestep=torch.tensor(timestep), **inputs)
        with fxcache.session(model):
            assert torch.equal(model(timestep=timestep, **inputs), expected)
        for twin in (model, plain):
            if change == "tensor":
                twin.flag.fill_(3.0)
            else:
                twin.options.add("b")


class Carrying(nn.Module):
    """A block that only moves a second stream."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        bias = bias.flip(1)
        return x + self.linear(x) + bias.exp(), bias


class TwoStreams(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(Carrying() for _ in range(3))

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        x, hidden = sample, sample[..., :1] > 0
        bias = torch.zeros_like(sample[..., :1]).masked_fill(hidden, -torch.inf)
        for block in self.blocks:
            x, bias = block(x, bias)
        return torch.where(bias.isinf(), x, x * 0.5) + bias.exp() + timestep + text.mean()


@torch.no_grad()
def test_a_moved_stream_is_moved_again_at_reuse():
    model, plain = fxcache.optimize(TwoStreams().eval(), fxcache.Uniform(3)), TwoStreams().eval()
    text, sample = torch.randn(2, 3), torch.randn(2, 6, 4)
    with fxcache.session(model):
        for timestep in (900.0, 800.0, 700.0):
            got = model(sample, timestep, text)
            expected = plain(sample, torch.tensor(timestep), text)
            torch.testing.assert_close(got, expected)
    cut = fxcache.report(model).captures[0].cut
    assert cut["cached_tensors"] == 1


@torch.no_grad()
def test_a_constant_made_in_forward_is_exact():
    """torch warns of its own conversion. For some users all warnings are errors."""

    class Stepped(DiT):
        def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
            stage = torch.bucketize(timestep, torch.tensor([100.0, 300.0, 500.0]))
            return super().forward(sample * (1 + stage), timestep, text)

    inputs, t = dit_inputs(), torch.tensor(400.0)
    model = fxcache.optimize(Stepped(depth=2).eval(), policy=EVERY)
    with warnings.catch_warnings(), fxcache.session(model):
        warnings.simplefilter("error")
        found = model(timestep=t, **inputs)
    assert torch.equal(found, Stepped(depth=2).eval()(timestep=t, **inputs))
