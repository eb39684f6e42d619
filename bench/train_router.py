"""Train a Learning-to-Cache router for a transformer's pipeline: ``python -m bench.train_router``.

If it is stopped, the same command continues after the last finished round.
"""

from statistics import fmean

from bench.rounds import HELD_OUT, checkpoint_of, parser, print_loss, rounds_from
from fxcache.calibration.learned_router import RouterOptions, train
from fxcache.calibration.training import prediction_error
from fxcache.integrations.diffusers import denoiser_of
from fxcache.policies import LearnedRouter


def main() -> None:
    top = parser(__doc__, RouterOptions)
    top.add_argument("--penalty", type=float, default=RouterOptions.penalty, help="λ")
    top.add_argument("--threshold", type=float, default=RouterOptions.threshold)
    arguments = top.parse_args()
    rounds = rounds_from(arguments)
    model = denoiser_of(rounds.pipeline)
    options = RouterOptions(
        rounds=arguments.rounds,
        learning_rate=arguments.learning_rate,
        checkpoint=checkpoint_of(arguments.out),
        penalty=arguments.penalty,
        threshold=arguments.threshold,
    )
    plan = train(model, rounds, options, print_loss)
    plan.save(arguments.out)
    missed = prediction_error(model, plan, rounds, HELD_OUT)
    policy = plan.policy
    assert isinstance(policy, LearnedRouter)
    share = fmean(len(row) / len(policy.points) for row in policy.computed()[1::2])
    print(f"odd steps compute {share:.0%} of the layers; mean squared error {missed:.4g}")


if __name__ == "__main__":
    main()
