"""The scripts in tools/, without a browser."""

from __future__ import annotations

import re

import pytest

from tools.look import HARNESS
from tools.oldest import PROJECT, oldest
from tools.words import WORDS, findings


def test_words_are_found_with_their_line() -> None:
    bad = "goes on " + "beyond its borders"  # apart, as this file is looked at, too
    assert findings(f"One line.\nHow it {bad}.") == [(2, bad, "padding mode")]
    for pattern, better in WORDS.items():
        assert not re.search(pattern, better, re.IGNORECASE)


def test_oldest_are_the_lower_bounds() -> None:
    text = PROJECT.read_text(encoding="utf-8")
    assert [pin.split("==")[0] for pin in oldest(text, ["core"])] == ["numpy", "scipy"]
    pins = oldest(text, ["core", "cli", "plot", "sklearn"])
    assert all(re.fullmatch(r"[\w.-]+==\d[\w.]*", pin) for pin in pins)
    assert "matplotlib==3.8" in pins
    with pytest.raises(SystemExit, match="no extra 'none'"):
        oldest(text, ["none"])


def test_harness_takes_pages() -> None:
    for name in ("PAGES", "WIDTHS", "THEMES"):
        assert HARNESS.count(name) == 1
