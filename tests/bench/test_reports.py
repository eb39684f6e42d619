"""Tries the situations of public reports, and tests what tries them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import fxcache
from bench import compatibility
from bench.reports import models, section
from bench.reports.report import PublicReport
from bench.reports.requests import Request, each_module, in_order
from bench.reports.situations import reports
from fxcache.runtime.module import engine_of

REPORTS = reports()
# Small models in plain loops; the others with "make test-slow".
QUICK = (
    "kijai/ComfyUI-KJNodes#219",
    "sgl-project/sglang#33827",
    "vllm-project/vllm-omni#4659",
    "vllm-project/vllm-omni#5560",
)
EVERY = [
    pytest.param(report, id=name, marks=[] if name in QUICK else pytest.mark.slow)
    for name, report in REPORTS.items()
]


@pytest.mark.filterwarnings("ignore")  # of pipelines, and about the short runs here
@pytest.mark.usefixtures("shared_captures", "clean_dynamo")
@pytest.mark.parametrize("report", EVERY)
def test_the_situation_of(report: PublicReport):
    assert not report.attempt()


def test_each_report_has_a_result_and_each_result_a_report():
    assert compatibility.stored("reports")["faults"].keys() == REPORTS.keys()


def test_there_are_many_reports_of_many_projects():
    assert len(REPORTS) >= 18
    assert len({report.repository for report in REPORTS.values()}) >= 8


def test_the_section_tells_what_holds_what_is_limited_and_what_fails():
    holds, limited, fails = [name for name, report in REPORTS.items() if report.limit][:3]
    faults = {holds: [], limited: [], fails: ["one thing", "another"]}
    text = section.text({"versions": {"torch": "2", "diffusers": "0"}, "faults": faults})
    assert "Of the 3, 2 hold." in text
    table, _, rest = text.partition("### Where fxcache does not do well")
    limits, _, failing = rest.partition("### Reports that fail here")
    assert REPORTS[holds].address in table
    assert REPORTS[fails].address not in table
    assert REPORTS[limited].limit in limits
    assert failing.rstrip().endswith("Here: one thing; another.")


class Loop:
    """A plain loop's model, as the component of a pipeline."""

    def __init__(self) -> None:
        self.components = {"model": models.denoiser()}


def drawing(seed: int = 1) -> Callable[[Any], list[torch.Tensor]]:
    def drawn(loop: Any) -> list[torch.Tensor]:
        model = loop.components["model"]
        return [models.denoised(model, text=models.text(seed=seed))]

    return drawn


@pytest.mark.usefixtures("shared_captures")
class TestInOrder:
    def test_requests_that_do_not_disturb_each_other(self):
        requests = [Request(drawing(seed)) for seed in (1, 2, 1)]
        assert not in_order(Loop, requests, optimize=each_module)

    def test_a_request_that_reads_another_ones_cache(self):
        """The loop's second call of ``drawn`` depends on what was called before."""

        def drawn(loop: Any) -> list[torch.Tensor]:
            model = loop.components["model"]
            loop.drawn = getattr(loop, "drawn", 0) + 1
            if loop.drawn % 2 == 0:  # not alone
                fxcache.optimize(model, fxcache.Uniform(2))
            return drawing()(loop)

        faults = in_order(Loop, [Request(drawing()), Request(drawn)] * 2, optimize=each_module)
        assert any("differs from that of the request alone" in fault for fault in faults)

    def test_a_result_that_is_not_exact(self):
        def drawn(loop: Any) -> list[torch.Tensor]:
            optimised = engine_of(loop.components["model"]) is not None
            return [result + optimised for result in drawing()(loop)]

        faults = in_order(Loop, [Request(drawn)], optimize=each_module)
        assert "request 1: refreshing at every step changes the result" in faults

    def test_a_request_in_which_nothing_is_reused(self):
        faults = in_order(Loop, [Request(drawing())], (fxcache.Uniform(1),), each_module)
        assert any("nothing was reused" in fault for fault in faults)
        assert any("each step refreshed" in fault for fault in faults)
