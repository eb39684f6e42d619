"""The page about compatibility is what the stored results make."""

from bench import compatibility


def test_the_page_is_what_the_results_make():
    assert compatibility.PAGE.read_text("utf-8") == compatibility.document()
