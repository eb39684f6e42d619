"""Tests promises 1 and 2 for every cut, prefix and set of points, in random denoisers."""

from collections import Counter
from itertools import pairwise
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from fxcache.analysis.cost import op_name
from fxcache.capture.capture import capture
from fxcache.codecs.codec import entries_of
from fxcache.codecs.format import CacheFormat
from fxcache.codecs.scale_shift import ScaleShift, zeros
from fxcache.errors import CutError
from fxcache.partition.choose import choose
from fxcache.partition.cut import CutPlan
from fxcache.partition.frontier import Frontier
from fxcache.partition.points import groups_of
from fxcache.partition.request import CutRequest
from fxcache.policies import Caches, Observation, Signal, Since, Uniform
from fxcache.rewrite.variants import NOTHING, Variants, rewrite
from fxcache.signature import Signature

WIDTH, TOKENS, WORDS = 8, 6, 3


class Block(nn.Module):
    """A block over the tokens of an image and a text; ``plan`` defines its treatment of each."""

    def __init__(self, plan: dict[str, Any]):
        super().__init__()
        self.plan = plan
        self.norm = nn.LayerNorm(WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.joint = nn.Linear(WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, text: Tensor, emb: Tensor) -> tuple[Tensor, Tensor]:
        gate = self.gate(emb)[:, None]
        branch = self.mix(self.norm(x))
        if self.plan["attends"]:
            weights = (branch @ torch.cat([text, x], 1).transpose(1, 2)).softmax(-1)
            branch = weights @ self.joint(torch.cat([text, x], 1))
        match self.plan["residual"]:
            case "add":
                x = x + gate * branch
            case "cast":
                x = (x.double() + gate.double() * branch).float()
            case "scaled":
                x = (x + branch) / 2.0
            case "joined":
                both = torch.cat([text, x], 1)
                both = both + self.joint(self.norm(both))
                text, x = both[:, :WORDS], both[:, WORDS:]
            case "none":
                x = gate * branch
        if self.plan["text"]:
            text = text + self.joint(text) * x.mean(1, keepdim=True)
        return x, text


class Denoiser(nn.Module):
    """Blocks in one or two stacks, with skip connections from the first half to the second."""

    def __init__(self, plans: list[dict[str, Any]], second: int, skips: bool):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.time = nn.Linear(4, WIDTH), nn.Linear(1, WIDTH)
        self.blocks = nn.ModuleList(map(Block, plans))
        self.more_blocks = nn.ModuleList(map(Block, plans[:second]))
        self.joins = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in plans)
        self.norm, self.leave = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)
        self.skips = skips

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        x, emb = self.enter(sample), self.time(timestep.reshape(-1, 1))
        kept: list[Tensor] = []
        half = len(self.blocks) // 2
        for i, block in enumerate(self.blocks):
            if self.skips and i < half:
                kept.append(x)
            if self.skips and i >= len(self.blocks) - half:
                x = self.joins[i](torch.cat([x, kept.pop()], -1))
            x, text = block(x, text, emb)
        for block in self.more_blocks:
            x, text = block(x, text, emb)
        return self.leave(self.norm(x) + emb[:, None])


blocks = st.fixed_dictionaries(
    {
        "residual": st.sampled_from(["add", "add", "cast", "scaled", "joined", "none"]),
        "attends": st.booleans(),
        "text": st.booleans(),
    }
)
denoisers = st.builds(
    Denoiser, st.lists(blocks, min_size=1, max_size=5), st.integers(0, 2), st.booleans()
)


@torch.no_grad()
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(denoisers, st.data())
def test_every_cut_keeps_promises_1_and_2(model, data):
    model.eval()
    inputs = {
        "sample": torch.randn(2, TOKENS, 4),
        "timestep": torch.rand(2),
        "text": torch.randn(2, WORDS, WIDTH),
    }
    expected = model(**inputs)
    signature = Signature(Denoiser)
    call = signature.call((), inputs)
    frontier = Frontier(capture(model, signature, call))
    for request in requests(frontier, data):
        try:
            plan = choose(frontier, request)
        except CutError:
            assert not isinstance(request, str) or request not in offered(frontier)
            continue
        variants = rewrite(frontier, plan, "")
        output, *cached = variants.full(*call.tensors)
        (reused,) = variants.cached_skip(*call.tensors, *cached)
        assert torch.equal(output, expected), request
        assert len(cached) == plan.cut.cached_tensors
        assert sum(c.nbytes for c in cached) == plan.cut.cache_bytes
        if plan.cut.mode == "feature":
            assert torch.equal(reused, expected), request
        else:
            torch.testing.assert_close(reused, expected, rtol=1e-4, atol=1e-5)

    every_prefix_is_continued(frontier, call.tensors, expected)
    every_subset_is_reused(frontier, call.tensors, expected, data)


def every_prefix_is_continued(
    frontier: Frontier, tensors: tuple[Tensor, ...], expected: Tensor
) -> None:
    """Check that prefix and rest together do exactly the work of the whole."""
    for kind in Signal:
        policy = Observing(kind)
        try:
            plan = choose(frontier, "auto", policy)
        except CutError:
            continue
        variants = rewrite(frontier, plan, "")
        _, *shared = variants.prefix().module(*tensors)
        continued = variants.variant(NOTHING, continued=True)
        output, *cached = continued.module(*tensors, *shared)
        assert torch.equal(output, expected), kind
        rest = variants.variant(variants.all, continued=True)
        (reused,) = rest.module(*tensors, *shared, *cached)
        assert torch.equal(reused, variants.cached_skip(*tensors, *cached)[0]), kind
        assert work(variants.prefix().module) + work(continued.module) == work(variants.full)
        assert work(variants.prefix().module) + work(rest.module) >= work(variants.cached_skip)
        assert rest.flops == plan.cut.reuse_flops


def every_subset_is_reused(
    frontier: Frontier, tensors: tuple[Tensor, ...], expected: Tensor, data: st.DataObject
) -> None:
    """Check that any set of cache points may be reused with unchanged inputs."""
    for caches in (Caches.BLOCKS, Caches.ATTENTION, Caches.LAYERS, Caches.COMPONENTS):
        try:
            groups = groups_of(frontier, caches)
        except CutError:
            continue
        points = tuple(point for held in groups.values() for point in held)
        variants = rewrite(frontier, CutPlan(frontier.price(points, ""), groups, ""), "")
        output, *cached = variants.full(*tensors)
        assert torch.equal(output, expected), caches
        blended_and_adjusted(variants, tensors, cached)
        some = frozenset(data.draw(st.sets(st.sampled_from(sorted(groups)))))
        variant = variants.variant(some)
        signature, stored = variant.signature, entries_of(dict(enumerate(cached)))
        values = variant.module(*signature.bind(tensors, cached=stored))
        (output,), written, _, _ = signature.unpack(values)
        assert set(signature.reads) == set(variants.plan.numbers(some))
        assert not set(signature.reads) & set(signature.writes)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        for number, value in written.items():
            torch.testing.assert_close(value, cached[number], rtol=1e-3, atol=1e-4)


def blended_and_adjusted(
    variants: Variants, tensors: tuple[Tensor, ...], cached: list[Tensor]
) -> None:
    """Check that β of 0 and 1 give reuse and full, and that zeros adjust nothing."""
    older = [value + 1 for value in cached]
    reused = variants.cached_skip(*tensors, *older)[0]
    groups = len(variants.plan.groups)
    assert torch.equal(variants.blend.module(*tensors, *older, torch.zeros(groups))[0], reused)
    full = variants.full(*tensors)[0]
    assert torch.equal(variants.blend.module(*tensors, *older, torch.ones(groups))[0], full)
    frontier, plan = variants.frontier, variants.plan
    try:
        unadjusted = ScaleShift(zeros(frontier, plan))
    except CutError:
        return
    adjusted = rewrite(frontier, plan, "", CacheFormat(scale_shift=unadjusted))
    assert torch.equal(adjusted.cached_skip(*tensors, *older)[0], reused)


class Observing(Uniform, abstract=True):
    """Observes one signal, and ignores it."""

    signal: Signal

    def __init__(self, signal: Signal) -> None:
        super().__init__()
        object.__setattr__(self, "signal", signal)

    @property
    def observes(self) -> Observation:
        return Observation((self.signal,), Since.STEP)


def work(module: fx.GraphModule) -> Counter[str]:
    """Count the calls of each op that costs FLOPs."""
    ops = ("linear", "matmul", "scaled_dot_product_attention")
    names = (op_name(n) for n in module.graph.nodes if n.op == "call_function")
    return Counter(name for name in names if name in ops)


def offered(frontier: Frontier) -> set[str]:
    return {cut.name for cut in frontier.cuts()}


def requests(frontier: Frontier, data: st.DataObject) -> list[CutRequest]:
    """Return every cut that is offered, every skip, and some spans and values."""
    modules = list(frontier.modules)
    drawn = data.draw(st.lists(st.sampled_from(modules), min_size=4, max_size=4))
    return [
        *offered(frontier),
        *range(len(frontier.skips)),
        *drawn,
        *pairwise(drawn),
    ]
