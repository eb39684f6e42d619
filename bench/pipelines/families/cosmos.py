"""Pipelines of Cosmos 1, 2 and 2.5, which make videos of simulated worlds."""

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
from torch import Tensor, nn

from bench.pipelines.parts import assembled, denoiser, model, picture, prompt, square
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import GUIDED, flow_euler, frames, wan_vae

WITH_MASK = {"in_channels": 5}  # the latent, and where it is given


class Guardrail:
    """The interface of a safety checker, without its models. The videos here are noise."""

    def to(self, device: Any) -> None:
        pass

    def check_text_safety(self, text: str) -> bool:
        return bool(text)

    def check_video_safety(self, video: np.ndarray) -> np.ndarray:
        return video


class Control(diffusers.ModelMixin):  # type: ignore[misc]
    """The interface of a ControlNet. The real one resizes with torchvision."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.embeds = nn.ModuleList(
            nn.Conv3d(4, width, (1, 2, 2), (1, 2, 2)) for _ in range(blocks)
        )

    def forward(
        self, controls_latents: Tensor, conditioning_scale: float, **_: Any
    ) -> tuple[list[Tensor]]:
        states = [embed(controls_latents).flatten(2).mT for embed in self.embeds]
        return ([state * conditioning_scale for state in states],)


def cosmos(kind: str, scheduler: Any, vae: Any, **config: Any) -> Any:
    """Build a pipeline; ``config`` is its denoiser's."""
    return assembled(
        kind,
        transformer=denoiser("CosmosTransformer3DModel", **config),
        vae=vae,
        scheduler=scheduler,
        safety_checker=Guardrail(),
    )


def cosmos1(kind: str, **config: Any) -> Any:
    vae = model(
        diffusers.AutoencoderKLCosmos,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        num_layers=2,
        latents_mean=None,
        latents_std=None,
    )
    scheduler = diffusers.EDMEulerScheduler(
        sigma_max=80.0,
        sigma_data=0.5,
        sigma_schedule="karras",
        final_sigmas_type="sigma_min",
    )
    return cosmos(kind, scheduler, vae, **config)


def cosmos2(kind: str, **config: Any) -> Any:
    return cosmos(kind, flow_euler(use_karras_sigmas=True), wan_vae(), **config)


def unipc() -> Any:
    """Build the solver of Cosmos 2.5."""
    return diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        use_karras_sigmas=True,
        sigma_max=200.0,
        sigma_min=0.01,
    )


def predict() -> Any:
    return cosmos("Cosmos2_5_PredictBasePipeline", unipc(), wan_vae(), **WITH_MASK)


def transfer() -> Any:
    """Build a pipeline whose denoiser has a control in every second of four blocks."""
    transformer = denoiser(
        "CosmosTransformer3DModel",
        **WITH_MASK,
        num_layers=4,
        max_size=(8, 8, 8),
        controlnet_block_every_n=2,
        img_context_dim_in=8,
        img_context_num_tokens=4,
        img_context_dim_out=24,
    )
    return assembled(
        "Cosmos2_5_TransferPipeline",
        transformer=transformer,
        controlnet=model(Control, width=24, blocks=2),
        vae=wan_vae(),
        scheduler=unipc(),
        safety_checker=Guardrail(),
    )


def text_to_image() -> Mapping[str, Any]:
    return {**prompt(7, 16), **square(32), "guidance_scale": 3.0}


def text_to_world() -> Mapping[str, Any]:
    return {**text_to_image(), "num_frames": 9}


def image_to_world() -> Mapping[str, Any]:
    return {**text_to_world(), "image": picture()}


def video_to_world() -> Mapping[str, Any]:
    return {**text_to_world(), "video": frames(5)}


def controlled() -> Mapping[str, Any]:
    """Nine frames in two chunks that share one."""
    return {
        **text_to_image(),
        "controls": frames(9),
        "num_frames_per_chunk": 5,
        "num_ar_conditional_frames": 1,
    }


RECIPES = (
    PipelineRecipe(
        "CosmosTextToWorldPipeline",
        lambda: cosmos1("CosmosTextToWorldPipeline"),
        text_to_world,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "CosmosVideoToWorldPipeline",
        lambda: cosmos1("CosmosVideoToWorldPipeline", **WITH_MASK),
        video_to_world,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "Cosmos2TextToImagePipeline",
        lambda: cosmos2("Cosmos2TextToImagePipeline"),
        text_to_image,
        trajectories=GUIDED,
    ),
    PipelineRecipe(
        "Cosmos2VideoToWorldPipeline",
        lambda: cosmos2("Cosmos2VideoToWorldPipeline", **WITH_MASK),
        image_to_world,
        trajectories=GUIDED,
    ),
    PipelineRecipe("Cosmos2_5_PredictBasePipeline", predict, video_to_world, trajectories=GUIDED),
    PipelineRecipe(
        "Cosmos2_5_TransferPipeline", transfer, controlled, trajectories={"transformer": 4}
    ),
)
