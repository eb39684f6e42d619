"""Train the scale-shift adjustment of a Block Caching plan: ``python -m bench.train_scale_shift``.

If it is stopped, the same command continues after the last finished round.
"""

from pathlib import Path

from bench.rounds import HELD_OUT, checkpoint_of, parser, print_loss, rounds_from
from fxcache.calibration.plan import Plan
from fxcache.calibration.scale_shift import train
from fxcache.calibration.training import Options, prediction_error
from fxcache.integrations.diffusers import denoiser_of


def main() -> None:
    top = parser(__doc__, Options)
    top.add_argument(
        "--plan", type=Path, required=True, help="a plan of fxcache calibrate --policy blockcaching"
    )
    arguments = top.parse_args()
    plan, rounds = Plan.load(arguments.plan), rounds_from(arguments)
    model = denoiser_of(rounds.pipeline)
    options = Options(
        rounds=arguments.rounds,
        learning_rate=arguments.learning_rate,
        checkpoint=checkpoint_of(arguments.out),
    )
    learned = train(model, plan, rounds, options, print_loss)
    learned.save(arguments.out)
    before, after = (prediction_error(model, p, rounds, HELD_OUT) for p in (plan, learned))
    print(f"mean squared error on held-out noise: {before:.4g} before, {after:.4g} after")


if __name__ == "__main__":
    main()
