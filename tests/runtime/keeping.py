"""Transformers that keep the embedded text between calls, each in another place."""

import threading
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from tests.plain import DiT, dit_inputs


class Keeping(DiT):
    """A transformer that embeds the text once a run."""

    def __init__(self) -> None:
        super().__init__(2)
        width = dit_inputs()["text"].shape[-1]
        self.embed_text = nn.Linear(width, width)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        embedded = self.kept()
        if embedded is None:
            embedded = self.embed_text(text).tanh()
            self.keep(embedded)
        return super().forward(sample, timestep, embedded)

    def kept(self) -> Any:
        """Return what is kept; None at the start of a run."""
        raise NotImplementedError

    def keep(self, text: Any) -> None:
        """Keep it; None at the end of a run."""
        raise NotImplementedError


class InAttribute(Keeping):
    """Keeps the text in an attribute, which its class has as well."""

    text: Any = None

    def kept(self) -> Any:
        return self.text

    def keep(self, text: Any) -> None:
        self.text = text


class InThread(Keeping):
    """Keeps the text in an object for each thread, which the first call makes (as F5-TTS does)."""

    def kept(self) -> Any:
        return getattr(self.__dict__.get("threads"), "text", None)

    def keep(self, text: Any) -> None:
        if "threads" not in self.__dict__:
            self.threads = threading.local()
        self.threads.text = text


class InDict(Keeping):
    """Keeps the text in a dict of a plain object."""

    def __init__(self) -> None:
        super().__init__()
        self.store = SimpleNamespace(by_name={})

    def kept(self) -> Any:
        return self.store.by_name.get("text")

    def keep(self, text: Any) -> None:
        if text is None:
            self.store.by_name.clear()
        else:
            self.store.by_name["text"] = text


class InDeletedAttribute(Keeping):
    """Deletes the attribute at the end of a run."""

    def kept(self) -> Any:
        return vars(self).get("text")

    def keep(self, text: Any) -> None:
        if text is None:
            vars(self).pop("text", None)
        else:
            self.text = text


class InBuffer(Keeping):
    """Keeps the text in a buffer of a submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].register_buffer("text", None, persistent=False)

    def kept(self) -> Any:
        return self.layers[0].text

    def keep(self, text: Any) -> None:
        self.layers[0].text = text


KINDS = (InAttribute, InThread, InDict, InDeletedAttribute, InBuffer)
