"""Tests models that branch on values: captures are specialised on conditioning only."""

import pytest
import torch
from torch import Tensor, nn

import fxcache
from tests.engines import num_captures


class Base(nn.Module):
    """A stream of four numbers a token, and two blocks that add to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def through(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class Padded(Base):
    """Removes padding, whose length it reads from the mask."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).tolist()
        kept = self.through(x[:, : max(lengths)])
        return torch.cat([kept, x[:, max(lengths) :]], 1) + t


class Packed(Base):
    """Selects tokens by a mask, and puts them back."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        out = x.clone()
        out[mask.bool()] = self.through(x[mask.bool()])
        return out.repeat_interleave(mask[0] + 1, dim=1) + t


class Chooser(Base):
    """Branches on whether an image was given."""

    def forward(self, x: Tensor, t: Tensor, picture: Tensor) -> Tensor:
        if torch.all(picture == 0):
            return self.through(x) + t
        return self.through(x + picture) + t


class OnTheLatent(Base):
    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        return self.through(x) + t if x.sum() > 0 else x


class OnTheTimestep(Base):
    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        return self.through(x) + t if t > 0 else x


class OnAMixture(Base):
    """Overwrites a part of a mask with values of the latent."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        mixed = mask.clone()
        part = mixed[0]
        part[:] = (x[0, :, 0] > 0).long()
        return self.through(x) + t if mixed.sum() > 2 else x


class OnAnOverwritten(Base):
    """Overwrites a mask with values of the latent by ``out=``."""

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        mixed = mask.clone()
        torch.mul(mask, (x[:, :, 0] > 0).long(), out=mixed)
        return self.through(x) + t if mixed.sum() > 2 else x


class OnChance(Base):
    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        x = self.through(x[:, : int(mask.sum(1).max())])
        return x + t if torch.rand(()) > 0.5 else x


MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0]])


@torch.no_grad()
@pytest.mark.sweep(1)
@pytest.mark.parametrize("kind", [Padded, Packed])
def test_values_read_from_a_mask(kind):
    model, plain = fxcache.optimize(kind().eval(), policy=fxcache.Uniform(interval=1)), kind()
    x = torch.randn(2, 5, 4)
    longer = MASK | MASK.roll(1, 1)
    masks = (MASK, longer, MASK, MASK.clone(), torch.ones_like(MASK))
    for t, mask in zip((5.0, 4.0, 3.0, 2.0, 1.0), masks, strict=True):
        assert torch.equal(model(x, t, mask), plain(x, t, mask))
    assert num_captures(model) == 3, "one for each distinct value"


@torch.no_grad()
def test_a_mask_written_in_place_is_read_again():
    model, plain = fxcache.optimize(Padded().eval()), Padded()
    x, mask = torch.randn(2, 5, 4), MASK.clone()
    timesteps = torch.arange(9.0, 0, -1)
    for index, t in enumerate(timesteps):
        if index in (3, 4):
            mask[:, index] = 1
            assert torch.equal(model(x, t, mask), plain(x, t, mask))
        else:
            model(x, t, mask)
    assert num_captures(model) == 3


@torch.no_grad()
def test_a_picture_that_is_all_zeros():
    model, plain = fxcache.optimize(Chooser().eval()), Chooser()
    x = torch.randn(2, 5, 4)
    for t, picture in enumerate((torch.zeros(2, 5, 4), torch.randn(2, 5, 4))):
        assert torch.equal(model(x, t, picture), plain(x, t, picture))
    assert num_captures(model) == 2


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", [OnTheLatent, OnTheTimestep, OnAMixture, OnAnOverwritten, OnChance]
)
def test_branches_on_the_latent_are_refused(kind):
    model = fxcache.optimize(kind().eval())
    x, random = torch.randn(2, 5, 4), torch.get_rng_state()
    with pytest.raises(fxcache.CaptureError) as caught:
        model(x, torch.tensor(0.5), MASK)
    assert torch.equal(torch.get_rng_state(), random), "tracing draws nothing"
    assert "test_specialize.py" in caught.value.where
    assert "if" in caught.value.where
