"""``python -m bench.emoji_dit``: train, export and sample the bundled DiT."""

import argparse
from pathlib import Path

from diffusers import AutoencoderKL

from bench.emoji_dit import export, train
from bench.emoji_sd import pictures
from bench.emoji_sd.export import PROMPTS

MODELS = Path(__file__).parents[1] / "models"
AUTOENCODER = MODELS / "emoji-sd" / "vae"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench.emoji_dit", description=__doc__)
    top.add_argument("--work", type=Path, default=Path("build/emoji_dit"), help="checkpoints")
    top.add_argument("--out", type=Path, default=MODELS / "emoji-dit", help="the pipeline folder")
    commands = top.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train the transformer, or resume it")
    learn.add_argument("--steps", type=int, default=6000)
    commands.add_parser("export", help="write the pipeline folder from the checkpoint")
    draw = commands.add_parser("sample", help="draw a sheet with the pipeline folder")
    draw.add_argument("--steps", type=int, default=40)
    draw.add_argument("--to", type=Path, default=Path("build/sheet.png"))
    draw.add_argument("names", nargs="*", default=list(PROMPTS))
    return top


def main() -> None:
    arguments = parser().parse_args()
    checkpoint = arguments.work / "transformer.pt"
    match arguments.command:
        case "train":
            train.train(checkpoint, AutoencoderKL.from_pretrained(AUTOENCODER), arguments.steps)
        case "export":
            vae = AutoencoderKL.from_pretrained(AUTOENCODER)
            _, names = pictures.training_set()
            export.export(train.load(checkpoint), vae, names, arguments.out)
        case "sample":
            export.sample(arguments.out, arguments.names, arguments.steps, arguments.to)


if __name__ == "__main__":
    main()
