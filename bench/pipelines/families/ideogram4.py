"""The pipeline of Ideogram 4."""

from collections.abc import Mapping
from typing import Any

from transformers import Qwen3VLTextConfig, Qwen3VLTextModel

from bench.pipelines.parts import StandIn, denoiser, flow_matching, model, square, tokenizer
from bench.pipelines.recipe import PipelineRecipe

KIND = "Ideogram4Pipeline"
WIDTH = 16
TAPS = 13  # the layers of the text encoder whose states the transformer takes
TEMPLATE = "{% for message in messages %}{{ message.content[0].text }}{% endfor %}"


def text_encoder() -> Any:
    """Build a language model with as many layers as the published one has."""
    config = Qwen3VLTextConfig(
        vocab_size=64,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=36,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
    )
    whole: Any = StandIn()
    whole.language_model = model(lambda: Qwen3VLTextModel(config))
    return whole


def ideogram() -> Any:
    """Build a pipeline with a transformer for the prompt and another one without a prompt."""
    one, other = (
        denoiser("Ideogram4Transformer2DModel", llm_features_dim=TAPS * WIDTH) for _ in range(2)
    )
    return flow_matching(
        KIND,
        one,
        unconditional_transformer=other,
        text_encoder=text_encoder(),
        tokenizer=tokenizer(chat_template=TEMPLATE),
    )


def text_to_image() -> Mapping[str, Any]:
    guidance = {"guidance_scale": 3.0, "guidance_schedule": None}
    return {"prompt": "a cat", "max_sequence_length": 16, **guidance, **square(64)}


RECIPES = (PipelineRecipe(KIND, ideogram, text_to_image),)
