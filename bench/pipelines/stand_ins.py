"""Stand-ins for vision-language models and their processors."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn
from transformers import BatchEncoding

from bench.pipelines.parts import StandIn, tokenizer
from bench.seeding import seeded

IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105


class LanguageModel(nn.Module):
    """Two layers over embeddings of the tokens; its states are as wide as told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(64, width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        """Return the states of all layers, the last one normalised."""
        states = [self.embed_tokens(input_ids)]
        for layer in self.layers:
            states.append(layer(states[-1]).tanh())
        return (*states[:-1], self.norm(states[-1]))


class VisionLanguageModel(StandIn):
    """Has the interface of the vision-language models that encode prompts, and reads text only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model: Any = nn.Module()
        self.model.language_model = LanguageModel(width)

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=self.model.language_model(input_ids))


def vision_language_model(width: int) -> Any:
    return seeded(lambda: VisionLanguageModel(width))


class Processor:
    """Has the interface of the processors of vision-language models.

    Every picture becomes a token for each ``patch`` by ``patch`` pixels.
    """

    def __init__(self, patch: int = 32, image_processor: Any = None) -> None:
        self.patch = patch
        self.image_processor = image_processor
        self.tokenizer = tokenizer(ends=False, additional_special_tokens=[IMAGE_TOKEN])

    def __call__(self, text: list[str], images: Any = None, **options: Any) -> BatchEncoding:
        pictures = iter(images or [])
        filled = [self.filled(prompt, pictures) for prompt in text]
        return self.tokenizer(filled, **options)

    def filled(self, prompt: str, pictures: Any) -> str:
        """Repeat the token of each picture as often as the picture has patches."""
        first, *others = prompt.split(IMAGE_TOKEN)
        for other in others:
            width, height = next(pictures).size
            first += IMAGE_TOKEN * (width // self.patch * (height // self.patch)) + other
        return first

    def apply_chat_template(self, messages: Any, **_: Any) -> list[list[int]]:
        texts = [message["content"][0]["text"] for message in messages]
        return [self.tokenizer(text)["input_ids"] for text in texts]
