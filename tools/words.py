"""Find phrases to replace in docs, docstrings, comments and messages: ``python tools/words.py``.

The words of the field are clearer than paraphrases of them. Prints file, line and a better phrase;
the exit status is 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SUFFIXES = {".py", ".rst", ".md", ".toml", ".yml", ".h", ".cpp"}
SKIPPED = {"tools/words.py", "CHANGELOG.md"}

# What was written, and what to write.
WORDS = {
    r"(goes?|going) on (beyond (its|the) (borders|ends)|periodically)": "padding mode",
    r"bit for bit what an uninterrupted": "identical",
    r"\banew\b": "again, start over",
    r"(is|are|was) what (it|they) (was|were)( before)?": "is unchanged",
    r"to what it was( at first)?": "to its initial value",
    r"(goes?|went) on (from (there|where)|where it)": "resume",
    r"(gone on|to go on) with": "resumed, to resume",
    r"who does what": "roles",
    r"when something dies": "failure handling",
    r"going on\b(?= *$)": "resuming a job",
    r"not for two threads": "not thread-safe",
    r"for ever\b": "forever, indefinitely",
    r"what (becomes|has become) of": "state, outcome, consequence",
    r"what comes of": "outcomes",
    r"what is (left|kept) of": "remainder, partial sums, cache",
    r"plays? no part": "is not used",
    r"for want of": "for lack of",
    r"(has|have) (next to )?nothing to say": "does not reply",
    r"whole or not at all": "atomically",
    r"nobody asks for": "not needed",
    r"extension modes?": "padding mode",
    r"on the disk\b(?! itself)": "on disk",
    r"not (any )?more, and not on": "no longer exist",
    r"what is never negative": "non-negative",
    r"\bin order to\b": "to",
    r"\butili[sz]e": "use",
    r"\bplease\b": "(leave it out)",
    r"\bsimply\b": "(leave it out)",
    r"\bobviously\b": "(leave it out)",
}


def findings(text: str) -> list[tuple[int, str, str]]:
    """Return line, phrase and replacement of each phrase on the list."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, better in WORDS.items():
            match = re.search(pattern, line, re.IGNORECASE)
            if match:
                found.append((number, match[0], better))
    return found


def files() -> list[Path]:
    """Return the files that people read."""
    places = [ROOT, *(ROOT / name for name in ("dtwpt", "docs", "examples", "benchmarks", "tests"))]
    paths = [
        path
        for place in places
        for path in (place.iterdir() if place == ROOT else place.rglob("*"))
        if path.suffix in SUFFIXES and path.is_file()
    ]
    kept = [path for path in paths if not {"_build", "api"} & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in kept if path.relative_to(ROOT).as_posix() not in SKIPPED)


def main() -> int:
    """Print what is found."""
    status = 0
    for path in files():
        for line, phrase, better in findings(path.read_text(encoding="utf-8")):
            print(f"{path.relative_to(ROOT)}:{line}: {phrase!r}: write {better!r}")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
