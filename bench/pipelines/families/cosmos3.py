"""The pipeline of Cosmos 3."""

from collections.abc import Mapping
from typing import Any

from diffusers.models.autoencoders.autoencoder_cosmos3_audio import Cosmos3AVAEAudioTokenizer

from bench.pipelines.parts import assembled, denoiser, model, picture, square, tokenizer
from bench.pipelines.recipe import PipelineRecipe
from bench.pipelines.video_parts import flow_unipc, wan_vae

CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def omni() -> Any:
    """Build a pipeline that makes sound too, eight samples for each latent one."""
    return assembled(
        "Cosmos3OmniPipeline",
        enable_safety_checker=False,
        transformer=denoiser("Cosmos3OmniTransformer", sound_gen=True, sound_dim=6),
        text_tokenizer=tokenizer(chat_template=CHAT),
        vae=wan_vae(),
        sound_tokenizer=model(
            Cosmos3AVAEAudioTokenizer,
            sampling_rate=240,
            hop_size=8,
            vocoder_input_dim=6,
            dec_dim=8,
            dec_c_mults=(1, 2),
            dec_strides=(2, 4),
            encoder_enabled=False,
        ),
        scheduler=flow_unipc(),
    )


def image_to_sound() -> Mapping[str, Any]:
    """A video and its sound. The prompts stay short: no size and no duration is added."""
    return {
        **square(64),
        "prompt": "a cat",
        "negative_prompt": "bad",
        "image": picture(64),
        "num_frames": 5,
        "guidance_scale": 3.0,
        "enable_sound": True,
        "use_system_prompt": False,
        "add_resolution_template": False,
        "add_duration_template": False,
    }


RECIPES = (
    PipelineRecipe("Cosmos3OmniPipeline", omni, image_to_sound, trajectories={"transformer": 2}),
)
