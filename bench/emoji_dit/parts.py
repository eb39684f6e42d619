"""The transformer: 7.0 M parameters, of which 1.6 M are in the class embeddings of blocks."""

from diffusers import DiTTransformer2DModel
from torch import nn

from bench.emoji_sd.parts import LATENT_CHANNELS, LATENT_SIZE

NULL_CLASS = 1000  # the class that DiTPipeline passes for the unconditional half


def transformer(layers: int = 10, heads: int = 5, head_width: int = 32) -> DiTTransformer2DModel:
    """Build the transformer. Each latent pixel is a token. Initialisation is adaLN-Zero."""
    model = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=layers,
        sample_size=LATENT_SIZE,
        patch_size=1,
        num_embeds_ada_norm=NULL_CLASS,
    )
    modulations = [block.norm1.linear for block in model.transformer_blocks]
    for layer in (*modulations, model.proj_out_1, model.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model
