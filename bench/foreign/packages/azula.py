"""azula: a U-Net and a ViT, with its denoisers and its samplers."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from bench.foreign.recipe import ForeignRecipe, Subject
from bench.seeding import seeded

PACKAGE = "azula"
MODULATION, CHANNELS, SIDE, STEPS = 16, 3, 16, 50


class WithTime(nn.Module):
    """The backbone of azula's tutorials: it embeds the time, and modulates a network by it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        from azula.nn.layers import SineEncoding

        self.encode, self.network = SineEncoding(MODULATION), network

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.network(x_t, self.encode(t))


def unet() -> nn.Module:
    from azula.nn.unet import UNet

    widths = {"hid_channels": (16, 32), "hid_blocks": (2, 2), "mod_features": MODULATION}
    return WithTime(UNet(CHANNELS, CHANNELS, **widths))


def vit() -> nn.Module:
    from azula.nn.vit import ViT

    widths = {"hid_channels": 32, "hid_blocks": 4, "mod_features": MODULATION}
    return WithTime(ViT(CHANNELS, CHANNELS, patch_size=4, attention_heads=2, **widths))


def sampled(
    network: Callable[[], nn.Module], denoiser: str, sampler: str, **options: Any
) -> Callable[[], Subject]:
    def build() -> Subject:
        import azula.denoise
        import azula.noise
        import azula.sample

        schedule = azula.noise.VPSchedule()
        model = getattr(azula.denoise, denoiser)(seeded(network), schedule).eval()
        loop = getattr(azula.sample, sampler)(model, steps=STEPS, silent=True, **options)
        shape = (2, CHANNELS, SIDE, SIDE)
        return Subject({"backbone": model.backbone}, lambda: loop(loop.init(shape)))

    return build


RECIPES = tuple(
    ForeignRecipe(PACKAGE, model, f"{denoiser}, {sampler}", sampled(network, denoiser, sampler))
    for model, network, denoiser, sampler in (
        ("UNet", unet, "KarrasDenoiser", "DDIMSampler"),
        ("UNet", unet, "SimpleDenoiser", "DDPMSampler"),
        ("UNet", unet, "KarrasDenoiser", "HeunSampler"),
        ("ViT", vit, "KarrasDenoiser", "DDIMSampler"),
        ("ViT", vit, "KarrasDenoiser", "EulerSampler"),
        ("ViT", vit, "KarrasDenoiser", "zABSampler"),
    )
)
