"""Promises 1 and 2 for every cut that is offered, in denoisers drawn at random."""

from itertools import pairwise
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fxcache.capture.capture import capture
from fxcache.errors import CutError
from fxcache.partition.choose import CutRequest, choose
from fxcache.partition.frontier import Frontier
from fxcache.rewrite.runner import rewrite
from fxcache.signature import Signature

WIDTH, TOKENS, WORDS = 8, 6, 3


class Block(nn.Module):
    """A block over a picture's and a text's tokens; ``plan`` says how it treats each."""

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
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
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
        variants = rewrite(frontier.program, plan, "")
        output, *cached = variants.full(*call.tensors)
        (reused,) = variants.cached_skip(*call.tensors, *cached)
        assert torch.equal(output, expected), request
        assert len(cached) == plan.cut.cached_tensors
        assert sum(c.nbytes for c in cached) == plan.cut.cache_bytes
        if plan.cut.mode == "feature":
            assert torch.equal(reused, expected), request
        else:
            torch.testing.assert_close(reused, expected, rtol=1e-4, atol=1e-5)


def offered(frontier: Frontier) -> set[str]:
    return {cut.name for cut in frontier.cuts()}


def requests(frontier: Frontier, data: st.DataObject) -> list[CutRequest]:
    """Every cut that is offered, every skip, and some spans and values besides."""
    modules = list(frontier.modules)
    drawn = data.draw(st.lists(st.sampled_from(modules), min_size=4, max_size=4))
    return [
        *offered(frontier),
        *range(len(frontier.skips)),
        *drawn,
        *pairwise(drawn),
    ]
