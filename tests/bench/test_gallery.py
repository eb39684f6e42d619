"""Tests the strips of the gallery, and that drawing twice gives the same file."""

from bench.gallery.drawing import drawing_style, save
from bench.gallery.inputs import STEPS
from bench.gallery.schedules import KNOWN, OBSERVED, TWO_CUTS, guided, point_strips, strip


def refreshes(label, policy):
    return [s for s, refresh in enumerate(strip(label, policy).computed) if refresh]


def test_strips_show_what_the_policies_decide():
    assert refreshes("", KNOWN["Uniform(interval=5)"]) == list(range(0, STEPS, 5))
    assert refreshes("", KNOWN["Explicit((0, 4, 9, 20))"]) == [0, 4, 9, 20]
    assert strip("", KNOWN["TaylorSeer(interval=4)"]).extrapolated


def test_policies_that_observe_follow_the_change():
    for label, policy in OBSERVED.items():
        found = refreshes(label, policy)
        early, middle = (sum(low <= s < low + 10 for s in found) for low in (0, 25))
        assert found[0] == 0
        assert early > middle, label


def test_each_cache_point_has_a_strip():
    outer, inner = point_strips(TWO_CUTS)
    assert (outer.label, inner.label) == ("cut 0", "cut 3")
    assert all(o >= i for o, i in zip(outer.computed, inner.computed, strict=True))


def test_drawing_twice_gives_the_same_file(tmp_path):
    with drawing_style():
        for name in ("one.svg", "two.svg"):
            save(guided(), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
