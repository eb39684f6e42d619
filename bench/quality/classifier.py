"""A small classifier of emoji. Its features are used for the Fréchet distance.

``python -m bench.quality.classifier`` trains it on the 360 glyphs and writes its weights.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.emoji_sd import pictures
from bench.emoji_sd.train_autoencoder import shifted
from bench.emoji_sd.training import Average, Run, batches

WEIGHTS = Path(__file__).with_name("classifier.safetensors")
WIDTHS = (32, 64, 96, 128)
FEATURES = 64  # so few that 256 images give a covariance of full rank
CLASSES = 360
BATCH = 60
MOST_NOISE = 0.2  # the greatest standard deviation, for images in [-1, 1]
MOST_TINT = 0.15  # the greatest change of a colour's scale and offset


class Classifier(nn.Module):
    """Maps images ``[N, 3, H, W]`` in [-1, 1] to logits of the captions.

    ``features`` are the outputs of the penultimate layer, without an activation, because the
    Fréchet distance assumes normal features.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            convolution = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layers += [convolution, nn.GroupNorm(8, after), nn.SiLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.penultimate = nn.Linear(WIDTHS[-1], FEATURES)
        self.last = nn.Linear(FEATURES, CLASSES)

    def features(self, batch: Tensor) -> Tensor:
        """Return the features ``[N, 64]``."""
        return self.penultimate(self.trunk(batch))

    def forward(self, batch: Tensor) -> Tensor:
        return self.last(self.features(batch))


def augmented(batch: Tensor) -> Tensor:
    """Shift the images, mirror half of them, tint them and add noise."""
    gain, bias = MOST_TINT * (2 * torch.rand(2, len(batch), 3, 1, 1) - 1)
    sigma = MOST_NOISE * torch.rand(len(batch), 1, 1, 1)
    return shifted(batch) * (1 + gain) + bias + sigma * torch.randn_like(batch)


def train(checkpoint: Path, steps: int) -> Classifier:
    """Train a classifier with averaged weights. A class is the index of a glyph."""
    torch.manual_seed(0)
    data, _ = pictures.training_set()
    model = Classifier()
    average = Average(model, decay=0.99)
    run = Run(checkpoint, {"classifier": model, "average": average}, steps, peak_lr=2e-3)
    order = batches(len(data), BATCH, seed=run.step)
    torch.manual_seed(run.step)

    def batch_loss() -> Tensor:
        average.update(model, run.step)
        chosen = next(order)
        return cross_entropy(model(augmented(data[chosen])), chosen)

    run.train(batch_loss, "classifier")
    average.copy_to(model)
    return model.eval()


@torch.no_grad()
def accuracy(model: Classifier, rounds: int = 10) -> float:
    """Return the share of augmented glyphs that it classifies correctly, over ``rounds``."""
    torch.manual_seed(1)
    data, _ = pictures.training_set()
    named = [model(augmented(data)).argmax(1) == torch.arange(len(data)) for _ in range(rounds)]
    return float(torch.cat(named).float().mean())


def save(model: Classifier, file: Path) -> None:
    """Write the weights in float16."""
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, file)


def load(file: Path = WEIGHTS) -> Classifier:
    model = Classifier()
    model.load_state_dict(load_file(file))
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--work", type=Path, default=Path("build/classifier.pt"), help="checkpoint")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    arguments = parser.parse_args()
    save(train(arguments.work, arguments.steps), arguments.out)
    print(f"classifies {accuracy(load(arguments.out)):.1%} of the augmented glyphs correctly")


if __name__ == "__main__":
    main()
