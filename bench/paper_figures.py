"""The table of ``docs/papers.md``, from the results of ``python -m bench.paper_macs``."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

GIGA = 1e9
Models = Mapping[str, Mapping[str, Any]]


def paper_figures(models: Models) -> str:
    """Return the table, and the lines about what reproduces and what attention adds.

    Args:
        models: The content of ``bench/results/paper_macs.json``.
    """
    return "\n\n".join([macs_table(models), reproduced_lines(models), attention_lines(models)])


def macs_table(models: Models) -> str:
    """Return multiply-accumulates of an average step: the paper's, and both counts of fxcache."""
    rows = [
        {
            "average step, batch 1": name if interval == "1" else "",
            "interval": "1, uncached" if interval == "1" else interval,
            "steps refreshed": f"{found['refreshes']} of {model['steps']}",
            "the paper": f"{found['printed']} G" if found["printed"] else "–",
            "as the paper's tool counts": giga(found["paper_tool"]),
            "difference": difference(found),
            "all that fxcache counts": giga(found["macs"]),
        }
        for name, model in models.items()
        for interval, found in model["intervals"].items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def giga(macs: float) -> str:
    return f"{macs / GIGA:.2f} G"


def difference(found: Mapping[str, Any]) -> str:
    """Return how far the count is from the paper's figure, in per cent of the latter."""
    if not found["printed"]:
        return "–"
    if is_reproduced(found):
        return "none"
    return f"{found['paper_tool'] / GIGA / float(found['printed']) - 1:+.1%}"


def is_reproduced(found: Mapping[str, Any]) -> bool:
    """Whether the count equals the paper's figure in all its decimals."""
    decimals = len(found["printed"].partition(".")[2])
    return f"{found['paper_tool'] / GIGA:.{decimals}f}" == str(found["printed"])


def reproduced_lines(models: Models) -> str:
    """Return the number of figures that are reproduced, and the counts nearest to the others."""
    printed = [
        (name, interval, found)
        for name, model in models.items()
        for interval, found in model["intervals"].items()
        if found["printed"]
    ]
    missed = [item for item in printed if not is_reproduced(item[2])]
    first = (
        f"{len(printed) - len(missed)} of the {len(printed)} figures are reproduced in all their "
        "decimals."
    )
    return "\n\n".join([first, *(missed_line(models, *item) for item in missed)])


def missed_line(models: Models, name: str, interval: str, found: Mapping[str, Any]) -> str:
    """Return the counts at the skip connections and intervals beside those of the paper."""
    model = models[name]
    beside = range(model["skip_index"] - 1, model["skip_index"] + 2)
    refreshed = found["refreshes"] / model["steps"]
    reuses = [model["reuse_by_skip_index"][index]["paper_tool"] for index in beside]
    means = [refreshed * model["full"]["paper_tool"] + (1 - refreshed) * r for r in reuses]
    counts = ", ".join(f"{giga(m)} at skip index {i}" for i, m in zip(beside, means, strict=True))
    target = float(found["printed"]) * GIGA
    near = min(model["intervals"], key=lambda n: abs(model["intervals"][n]["paper_tool"] - target))
    return (
        f"{name}, interval {interval}: the paper prints {found['printed']} G. The count is "
        f"{counts}. At the paper's branch, interval {near} is nearest, with "
        f"{giga(model['intervals'][near]['paper_tool'])}."
    )


def attention_lines(models: Models) -> str:
    """Return the share of attention's products, which the paper's tool does not count."""
    lines = [
        f"- {name}: {share(model['full'])} of a full step, "
        f"{share(model['reuse_by_skip_index'][model['skip_index']])} of a reuse step "
        f"(cached: `{model['cut']}`, skip index {model['skip_index']})"
        for name, model in models.items()
    ]
    return "\n".join(["Share of attention's products in all that fxcache counts:", "", *lines])


def share(step: Mapping[str, int]) -> str:
    return f"{step['attention'] / step['macs']:.1%}"
