"""Draw the pictures of ``docs/gallery.md``: ``python -m bench.gallery [--out FOLDER]``.

Models are on the meta device, without weights and arithmetic. The same versions of the packages
give the same files.
"""

import argparse
from pathlib import Path

from bench.gallery.cuts import flux, stable_diffusion
from bench.gallery.drawing import drawing_style, save
from bench.gallery.pareto import pareto
from bench.gallery.schedules import calibrated, guided, known_beforehand, observed
from bench.gallery.transformer import draw_transformer
from bench.gallery.unet import draw_unet

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PICTURES)
    parser.add_argument("--format", choices=("svg", "png"), default="svg")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with drawing_style():
        pages = {
            "schedules-known": known_beforehand(),
            "schedules-observed": observed(),
            "schedules-calibrated": calibrated(),
            "schedule-guidance": guided(),
            "cut-sd15": draw_unet(stable_diffusion()),
            "cut-flux": draw_transformer(flux()),
            "pareto": pareto(),
        }
        for name, page in pages.items():
            save(page, arguments.out / f"{name}.{arguments.format}")


if __name__ == "__main__":
    main()
