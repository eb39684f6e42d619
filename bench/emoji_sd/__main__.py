"""``python -m bench.emoji_sd``: render, train, export and sample the bundled model."""

import argparse
from pathlib import Path

from bench.emoji_sd import export, font, pictures, train_autoencoder, train_denoiser

BUNDLED = Path(__file__).parents[1] / "models" / "emoji-sd"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m bench.emoji_sd", description=__doc__)
    top.add_argument("--work", type=Path, default=Path("build/emoji_sd"), help="checkpoints")
    top.add_argument("--out", type=Path, default=BUNDLED, help="the pipeline folder")
    commands = top.add_subparsers(dest="command", required=True)
    sheet = commands.add_parser("sheet", help="render the training pictures from the font again")
    sheet.add_argument("--to", type=Path, default=pictures.SHEET)
    first = commands.add_parser("autoencoder", help="train the autoencoder, or resume it")
    first.add_argument("--steps", type=int, default=2600)
    second = commands.add_parser("denoiser", help="train text encoder and U-Net, or resume them")
    second.add_argument("--steps", type=int, default=9000)
    commands.add_parser("export", help="write the pipeline folder from the checkpoints")
    draw = commands.add_parser("sample", help="draw a sheet with the pipeline folder")
    draw.add_argument("--steps", type=int, default=40)
    draw.add_argument("--to", type=Path, default=Path("build/sheet.png"))
    draw.add_argument("prompts", nargs="*", default=list(export.PROMPTS))
    return top


def main() -> None:
    arguments = parser().parse_args()
    autoencoder = arguments.work / "autoencoder.pt"
    denoiser = arguments.work / "denoiser.pt"
    match arguments.command:
        case "sheet":
            pictures.write_sheet(font.render_all(font.TRAINING_SET), font.digest(), arguments.to)
        case "autoencoder":
            train_autoencoder.train(autoencoder, arguments.steps)
        case "denoiser":
            vae = train_autoencoder.load(autoencoder)
            train_denoiser.train(denoiser, vae, arguments.steps)
        case "export":
            export.export(autoencoder, denoiser, arguments.out)
        case "sample":
            export.sample(arguments.out, arguments.prompts, arguments.steps, arguments.to)


if __name__ == "__main__":
    main()
