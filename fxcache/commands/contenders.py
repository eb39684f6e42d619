"""The options ``--policy``, ``--forecast``, ``--guidance`` and ``--option``, in their order."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from fxcache.calibration.calibration import MEASUREMENTS
from fxcache.calibration.plan import Plan
from fxcache.commands.options import option_from
from fxcache.errors import ConfigError
from fxcache.forecasts import Forecast
from fxcache.policies import GuidanceCache, Policy, Scheduled
from fxcache.registry import Registered

POLICY, FORECAST, GUIDANCE, PLAN, OPTION = "policy", "forecast", "guidance", "plan", "option"
LONGEST = 24  # characters of an option's value in a label
WRITE = "--prompts FILE --out plan.json"
TRAIN = "train it once in Python (the guide, under Plans), save its plan as plan.json"


class InOrder(argparse.Action):
    """Appends the option and its value to ``chosen``, so that their order is known."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del parser
        before = getattr(namespace, "chosen", None) or []
        namespace.chosen = [*before, (str(option_string).lstrip("-"), values)]


def named(kind: type[Registered]) -> dict[str, Any]:
    """Return the built-in classes of a registry by their names for the command line."""
    return {name.lower(): found for name, found in kind.kinds.items() if ":" not in name}


def add_contender_options(command: argparse.ArgumentParser, plan: bool) -> None:
    """Add the options; ``plan``: whether plans are among them."""
    forecasts = f"extrapolate cached values: {', '.join(sorted(named(Forecast)))}"
    options = {
        f"--{POLICY}": ("NAME", f"one of: {', '.join(sorted(named(Policy)))}"),
        f"--{FORECAST}": ("NAME", forecasts),
        f"--{OPTION}": ("NAME=VALUE", "an option of the policy, forecast or guidance before it"),
    }
    if plan:
        options[f"--{PLAN}"] = ("FILE", "a plan of `calibrate` or `tune`, in place of a policy")
    for name, (metavar, purpose) in options.items():
        command.add_argument(
            name,
            action=InOrder,
            dest="chosen",
            metavar=metavar,
            default=argparse.SUPPRESS,
            help=purpose,
        )
    guidance = "compute the unconditional half of the guidance at some steps only"
    command.add_argument(
        f"--{GUIDANCE}",
        action=InOrder,
        dest="chosen",
        nargs=0,
        default=argparse.SUPPRESS,
        help=guidance,
    )


@dataclass
class Contender:
    """One policy or plan, with its forecast and its guidance.

    Attributes:
        names: What was chosen, by part: ``"policy"``, ``"forecast"``, ``"guidance"``, ``"plan"``.
        options: The options of each part.
    """

    names: dict[str, str] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The contender in one line, such as ``Uniform(interval=3) + Taylor(order=2)``."""
        return " + ".join(self._label(part, name) for part, name in self.names.items())

    def _label(self, part: str, name: str) -> str:
        if part == PLAN:
            return name
        kinds: dict[str, Any] = {POLICY: named(Policy), FORECAST: named(Forecast)}
        kind = kinds[part][name].__name__ if part in kinds else GuidanceCache.__name__
        pairs = self.options[part].items()
        return f"{kind}({', '.join(f'{k}={shortened(v)}' for k, v in pairs)})"

    @property
    def policy(self) -> Policy | None:
        """The policy; None for the default one, or that of a plan."""
        return self._made(Policy, POLICY)

    @property
    def plan(self) -> Plan | None:
        """The plan, if there is one."""
        return Plan.load(self.names[PLAN]) if PLAN in self.names else None

    @property
    def optimize_options(self) -> dict[str, Any]:
        """The forecast and the guidance, as options of ``fxcache.optimize``."""
        found: dict[str, Any] = {}
        if FORECAST in self.names:
            found[FORECAST] = self._made(Forecast, FORECAST)
        if GUIDANCE in self.names:
            found[GUIDANCE] = guidance_of(self.options[GUIDANCE])
        return found

    def _made(self, kind: Any, part: str) -> Any:
        if part not in self.names:
            return None
        name = named(kind)[self.names[part]].plan_name()
        return kind.from_dict({part: name, **self.options[part]})


def shortened(value: object) -> str:
    """Return the value of an option for a label."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def guidance_of(options: Mapping[str, Any]) -> GuidanceCache:
    """Return the guidance with these options; ConfigError if one does not exist."""
    known = [f.name for f in fields(GuidanceCache)]
    if unknown := sorted(options.keys() - set(known)):
        raise ConfigError(
            f"GuidanceCache has no option {', '.join(unknown)}",
            where=f"--{GUIDANCE}",
            remedy=f"its options are: {', '.join(known)}",
        )
    return GuidanceCache(**options)


def contenders_from(arguments: argparse.Namespace) -> list[Contender]:
    """Return the contenders. Each ``--policy`` or ``--plan`` begins one.

    Raises:
        ConfigError: A name is unknown, an option has a wrong value, or belongs to nothing.
    """
    found: list[Contender] = []
    last = ""
    for part, value in vars(arguments).get("chosen", ()):
        if part == OPTION:
            add_option(found, last, value)
            continue
        begins = part in (POLICY, PLAN)
        if not found or (begins and {POLICY, PLAN} & found[-1].names.keys()):
            found.append(Contender())
        last = part
        found[-1].names[part] = checked_name(part, value)
        found[-1].options[part] = {}
    for contender in found:  # wrong values are errors before a pipeline is loaded
        require_measured(contender)
        _ = contender.policy, contender.optimize_options
    return found


def require_measured(contender: Contender) -> None:
    """Raise ConfigError if the policy lacks what a plan would bring."""
    if POLICY not in contender.names:
        return
    name = contender.names[POLICY]
    kind: type[Policy] = named(Policy)[name]
    if not kind.measured or kind.measured in contender.options[POLICY]:
        return
    made = TRAIN
    if kind in MEASUREMENTS:
        made = f"run `fxcache calibrate PIPELINE --policy {name} {WRITE}` once"
    elif kind is Scheduled:
        made = f"run `fxcache tune PIPELINE --speedup 2 {WRITE}` once"
    raise ConfigError(
        f"{kind.__name__} has no {kind.measured}: the policy must be fitted to a model",
        where=f"--{POLICY} {name}",
        remedy=f"{made}, and pass --{PLAN} plan.json in place of --{POLICY} {name}",
    )


def add_option(found: Sequence[Contender], part: str, text: str) -> None:
    """Add an option to the part before it; ConfigError if there is none."""
    if not found or part == PLAN:
        raise ConfigError(
            f"{text!r} belongs to no policy",
            where="--option",
            remedy="write it after the --policy, --forecast or --guidance that it belongs to",
        )
    name, value = option_from(text)
    found[-1].options[part][name] = value


def checked_name(part: str, name: Any) -> str:
    """Return a name as ``named`` has it; ConfigError if it is unknown."""
    if part not in (POLICY, FORECAST):
        return str(name or "")
    known = named(Policy if part == POLICY else Forecast)
    plain = str(name).lower().replace("-", "").replace("_", "")
    if plain not in known:
        raise ConfigError(
            f"there is no {part} named {name!r}",
            where=f"--{part} {name}",
            remedy=f"pass one of: {', '.join(sorted(known))}",
        )
    return plain
