"""Shared parts of the trainings: learning rate, checkpoints, averages, batches and noise."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import nn
from tqdm import trange

CHECKPOINT_EVERY = 200
WARM_UP_STEPS = 200
DECAY_SHARE = 0.3  # the last share of the run, in which the learning rate decays to zero


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor: linear warm-up, a plateau, and linear decay to zero at ``steps``."""
    warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
    decay = min(1.0, (steps - step) / (DECAY_SHARE * steps))
    return max(0.0, min(warm_up, decay))


class Run:
    """A training run of ``modules``, which continues from the checkpoint ``path`` if it exists."""

    def __init__(self, path: Path, modules: dict[str, nn.Module], steps: int, peak_lr: float):
        self.path, self.modules, self.steps, self.peak_lr = path, modules, steps, peak_lr
        self.parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=peak_lr, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.step = 0
        if path.exists():
            self.load_state_dict(torch.load(path, weights_only=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        for name, module in self.modules.items():
            module.load_state_dict(state[name])

    def save(self) -> None:
        """Write a checkpoint atomically."""
        state: dict[str, Any] = {name: m.state_dict() for name, m in self.modules.items()}
        state |= {"step": self.step, "optimizer": self.optimizer.state_dict()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.path)

    def update(self, loss: torch.Tensor) -> None:
        """Make one optimiser step with this step's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak_lr * learning_rate_factor(self.step, self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()

    def train(self, batch_loss: Callable[[], torch.Tensor], title: str) -> None:
        """Train to ``steps``, and show a running mean of the loss."""
        mean = 0.0
        bar = trange(self.step, self.steps, initial=self.step, total=self.steps, desc=title)
        for step in bar:
            self.step = step
            loss = batch_loss()
            self.update(loss)
            mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
            bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
            self.step = step + 1
            if self.step % CHECKPOINT_EVERY == 0 or self.step == self.steps:
                self.save()


class Average(nn.Module):
    """An exponential moving average of ``module``'s parameters (warmed up: Karras et al. 2024)."""

    def __init__(self, module: nn.Module, decay: float = 0.999):
        super().__init__()
        self.decay = decay
        names = [n.replace(".", "/") for n, _ in module.named_parameters()]
        values = (p.detach().clone() for p in module.parameters())
        self.values = nn.ParameterDict(
            {n: nn.Parameter(v, requires_grad=False) for n, v in zip(names, values, strict=True)}
        )

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (step + 1) / (step + 10))
        for name, value in module.named_parameters():
            self.values[name.replace(".", "/")].lerp_(value, weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, value in module.named_parameters():
            value.copy_(self.values[name.replace(".", "/")])


def load_average(module: nn.Module, checkpoint: Path) -> None:
    """Give ``module`` the averaged parameters of a checkpoint."""
    average = Average(module)
    average.load_state_dict(torch.load(checkpoint, weights_only=True)["average"])
    average.copy_to(module)


def batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches of indices forever, with a new permutation of ``count`` items per epoch."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.empty(0, dtype=torch.long)
    while True:
        while len(rest) < size:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        yield rest[:size]
        rest = rest[size:]


def noised(
    scheduler: DDIMScheduler, clean: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ``clean`` with noise at random timesteps, the timesteps, and the velocity."""
    noise = torch.randn_like(clean)
    at = torch.randint(0, scheduler.config.num_train_timesteps, (len(clean),))
    return scheduler.add_noise(clean, noise, at), at, scheduler.get_velocity(clean, noise, at)
