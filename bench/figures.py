"""Writes the figures in ``bench/results`` to pages: ``python -m bench.figures``."""

import argparse
import json
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.compiled_figures import compiled_figures
from bench.coverage import counts
from bench.deploy_figures import artifacts_table, serving_table
from bench.gpu_figures import gpu_figures
from bench.paper_figures import paper_figures
from bench.pipelines.document import rows_of
from bench.quality.claims import DEFAULT, SPEEDUPS, curves_of, interpolated
from bench.quality.sampling import STEPS
from bench.quality.settings import FEWER, TUNED
from fxcache.policies import Policy, ProtectedEnds, Uniform
from fxcache.step import Step

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"
README, KERNELS = ROOT / "README.md", ROOT / "kernels" / "README.md"
GPU, DEPLOY = ROOT / "docs" / "gpu.md", ROOT / "docs" / "deploy.md"
PAPERS, COMPILED = ROOT / "docs" / "papers.md", ROOT / "docs" / "compiled.md"
CURVES = {
    FEWER: "fewer steps, no caching",
    DEFAULT: "**`ProtectedEnds`, the default**",
    "Uniform": "`Uniform` (DeepCache)",
    "Taylor, order 1": "`TaylorSeer`, order 1",
    "TeaCache": "`TeaCache`, calibrated",
    "BlockCaching": "`BlockCaching`, calibrated",
    TUNED: "**`fxcache tune`**",
}
BEGIN, END = "<!-- figures: make figures -->", "<!-- end of figures -->"


def result(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def readme_figures() -> str:
    """Return the figures of the README."""
    parts = [
        demo_table(result("demo")),
        frontier_table(result("frontier")),
        hoisting_table(result("hoisting")),
        coverage_line(result("coverage")),
        pipelines_line(result("pipelines")),
        planning_table(result("planning")),
        overhead(),
        quality_table(result("quality")),
    ]
    return "\n\n".join(parts)


def demo_table(demo: dict[str, Any]) -> str:
    rows = [
        ("policy", "the default"),  # `make figures` passes none
        ("steps, of them refreshed", f"{demo['steps']}, {demo['refreshes']}"),
        ("denoiser, original", f"{demo['original_ms']:.1f} ms a step"),
        ("denoiser, refresh step", f"{demo['refresh_ms']:.1f} ms"),
        ("denoiser, reuse step", f"{demo['reuse_ms']:.1f} ms"),
        ("speed-up of the denoiser", f"**{demo['speedup']:.2f}×**"),
        ("ideal speed-up, from FLOPs", f"{demo['ideal_speedup']:.2f}×"),
        ("compared with the original", f"{demo['psnr_db']:.1f} dB PSNR, {demo['ssim']:.3f} SSIM"),
        ("cached", f"one tensor, {demo['cached_bytes']:,} bytes"),
    ]
    return tabulate(
        rows, headers=("bundled model, 2 CPU cores, float32, eager", ""), tablefmt="github"
    )


def frontier_table(frontier: dict[str, dict[str, Any]]) -> str:
    rows = []
    for model, found in frontier.items():
        outermost = found["cuts"][0]
        full, reuse = outermost["full_flops"], outermost["reuse_flops"]
        partly = found["outermost, partially evaluated"]["reuse_flops"]
        rows.append(
            {
                "model, batch 1": model,
                "full step": f"{full / 1e9:.0f} GFLOPs",
                "reuse step": f"{reuse / 1e9:.0f} GFLOPs",
                "saved": f"{1 - reuse / full:.1%}",
                "partially evaluated": f"{partly / 1e9:.0f} GFLOPs",
                "cached (float32)": f"{outermost['cache_bytes'] / 2**20:.1f} MiB",
                "ideal speed-up, default": f"{ideal_speedup(ProtectedEnds(), full, reuse):.2f}×",
                "`Uniform(3)`": f"{ideal_speedup(Uniform(3), full, reuse):.2f}×",
                "`Uniform(5)`": f"{ideal_speedup(Uniform(5), full, reuse):.2f}×",
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github")


def ideal_speedup(policy: Policy, full_flops: int, reuse_flops: int) -> float:
    """Return the speed-up from FLOPs over a run of ``STEPS`` steps."""
    refreshes = sum(policy.decide(Step(i, STEPS)).refresh for i in range(STEPS))
    return STEPS * full_flops / (refreshes * full_flops + (STEPS - refreshes) * reuse_flops)


def hoisting_table(hoisting: dict[str, Any]) -> str:
    rows = [
        {
            "weights that a step reads (float32)": model,
            "refresh": mebibytes(found["none"]["refresh"]),
            'hoist="once"': mebibytes(found["once"]["refresh"]),
            'hoist="table"': mebibytes(found["table"]["refresh"]),
            "saved by the table": f"{1 - found['table']['refresh'] / found['none']['refresh']:.1%}",
            "reuse": mebibytes(found["none"]["reuse"]),
            "reuse with the table": mebibytes(found["table"]["reuse"]),
        }
        for model, found in hoisting.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def mebibytes(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"


def coverage_line(coverage: dict[str, Any]) -> str:
    total = counts(coverage["classes"])
    return (
        f"fxcache captures {total['captured']} of the {total['classes']} classes in diffusers "
        f"{coverage['diffusers']}'s `models.unets` and `models.transformers`, and cuts "
        f"{total['cut']} of them. For {total['halved']} of these, tested with four or more blocks, "
        "a reuse step saves at least half of the FLOPs: [the table](docs/coverage.md)."
    )


def pipelines_line(pipelines: dict[str, Any]) -> str:
    rows = rows_of(pipelines)
    passing = sum(not row.faults() for row in rows)
    return (
        f"Of the {len(rows)} pipeline classes in diffusers {pipelines['diffusers']} that call a "
        f"denoiser four times or more, {passing} pass three checks: the same bits as without "
        "fxcache when every step refreshes, few refreshes when every third does, and the same bits "
        "in a second run: [the table](docs/pipelines.md)."
    )


def planning_table(planning: dict[str, Any]) -> str:
    rows = [
        {
            "captured once": model,
            "graph nodes": f"{found['nodes']:,}",
            "capture": f"{found['capture_s']:.1f} s",
            "plan and rewrite": f"{found['plan_s'] + found['rewrite_s']:.1f} s",
            "memory": f"{found['peak_bytes'] / 2**20:.0f} MiB",
        }
        for model, found in planning.items()
        if isinstance(found, dict)
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def overhead() -> str:
    measured = result("dispatch")
    return (
        f"fxcache's own Python code takes {measured['reuse_us']:.0f} µs of a reuse step and "
        f"{measured['refresh_us']:.0f} µs of a refresh."
    )


def quality_table(models: dict[str, Any]) -> str:
    curves = {name: curves_of(model["rows"]) for name, model in models.items()}
    pictures = len(next(iter(models.values()))["protocol"]["measured"]["prompts"])
    rows = [
        {f"PSNR, {pictures} pictures": CURVES[curve]}
        | {
            f"{name} at {speedup:g}×": decibels(interpolated(found.get(curve, []), speedup))
            for name, found in curves.items()
            for speedup in SPEEDUPS
        }
        for curve in CURVES
    ]
    table = tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
    return (
        "The next table compares pictures with those without caching, at equal FLOPs, on the two "
        "bundled models. Values between measured points are interpolated; a dash is outside of the "
        "measured speed-ups. Larger models are more sensitive. "
        f"[Quality against speed](docs/quality.md) has all policies.\n\n{table}"
    )


def decibels(psnr_db: float | None) -> str:
    return "–" if psnr_db is None else f"{psnr_db:.1f} dB"


def traffic_table() -> str:
    """Return the table of ``kernels/README.md``: the bytes of a reuse step."""
    rows = [
        {
            "bytes of a reuse step (bfloat16)": f"{model}, {form}" if len(forms) > 1 else model,
            "": option,
        }
        | {way: f"{total['bytes'] / 1e6:,.0f} MB" for way, total in step.items()}
        for model, forms in result("traffic")["models"].items()
        for form, steps in forms.items()
        for option, step in steps.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def gpu_tables() -> str:
    measured = sorted(file.stem for file in RESULTS.glob("gpu/*.json"))
    return gpu_figures({part: result(f"gpu/{part}") for part in measured})


def deploy_tables() -> str:
    return f"{artifacts_table(result('artifacts'))}\n\n{serving_table(result('serving'))}"


def paper_tables() -> str:
    return paper_figures(result("paper_macs"))


def compiled_tables() -> str:
    return compiled_figures(result("compiled"))


PAGES = {
    README: readme_figures,
    KERNELS: traffic_table,
    GPU: gpu_tables,
    DEPLOY: deploy_tables,
    PAPERS: paper_tables,
    COMPILED: compiled_tables,
}


def stated_in(page: Path) -> str:
    """Return the current text between the markers of ``page``."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for page, figures in PAGES.items():
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        page.write_text(f"{before}{BEGIN}\n\n{figures()}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
