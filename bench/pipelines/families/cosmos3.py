"""The pipeline of Cosmos 3."""

from collections.abc import Mapping
from typing import Any

from bench.pipelines.parts import assembled, denoiser, picture, square, tokenizer
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.videos import flow_unipc, wan_vae

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def omni() -> Any:
    return assembled(
        "Cosmos3OmniPipeline",
        transformer=denoiser("Cosmos3OmniTransformer"),
        text_tokenizer=tokenizer(chat_template=CHAT),
        vae=wan_vae(),
        scheduler=flow_unipc(),
    )


def image_to_video() -> Mapping[str, Any]:
    """The short prompts only, without descriptions of the size and the duration."""
    return {
        **square(64),
        "prompt": "a cat",
        "negative_prompt": "bad",
        "image": picture(64),
        "num_frames": 5,
        "guidance_scale": 3.0,
        "use_system_prompt": False,
        "add_resolution_template": False,
        "add_duration_template": False,
    }


RECIPES = (
    PipelineRecipe("Cosmos3OmniPipeline", omni, image_to_video, trajectories={"transformer": 2}),
)
