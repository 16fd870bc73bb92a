"""``dtwpt extract --dry-run``: work, time and output size of a run, estimated from a few images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dtwpt.cli.terminal import cores, duration, plural, quiet_libraries

if TYPE_CHECKING:
    from dtwpt.cli.jobs import Job

# Number of sample images, spread over all.
_SAMPLE = 20


def estimate(job: Job) -> str:
    """Return a summary of a planned run, for the terminal; nothing is written."""
    from dtwpt.extract import ImageError, find_images
    from dtwpt.extract.extractor import features_of
    from dtwpt.extract.inputs import sparing, with_keys

    files = list(sparing(job.outputs(), find_images(job.paths)))
    finished = _finished(job.output)
    left = [file for key, file in with_keys(files) if key not in finished]
    sample = left[:: max(1, len(left) // _SAMPLE)][:_SAMPLE]
    lengths, reasons = [], []
    with quiet_libraries():
        started = time.perf_counter()
        for file in sample:
            try:
                lengths.append(features_of(file, job.settings, job.device).features.size)
            except ImageError as error:
                reasons.append(error)
        seconds = (time.perf_counter() - started) / max(1, len(sample))
    said = [f"{plural(len(left), 'image')} to process"]
    if len(files) > len(left):
        said.append(f"{len(files) - len(left)} already done")
    if reasons:
        said.append(f"{len(reasons)} of {len(sample)} tried cannot be used (such as {reasons[0]})")
    if sample:
        workers = min(job.workers or cores(), cores())
        said.append(
            f"about {duration(seconds * len(left) / workers)} with {plural(workers, 'core')}"
        )
    if lengths:
        megabytes = 4e-6 * max(lengths) * len(left)
        said.append(
            f"{plural(max(lengths), 'feature')} each, {megabytes:.1f} MB before compression"
        )
    return f"{job.output}: {', '.join(said)}; nothing was written"


def _finished(output: str) -> set[str]:
    """Return the absolute paths of the files in a store."""
    from dtwpt.extract.files import is_store_name
    from dtwpt.extract.inputs import with_keys

    if not is_store_name(output):
        return set()
    from dtwpt.extract.store.reader import open_store

    try:
        store = open_store(output)
    except FileNotFoundError:
        return set()
    names = [*store.files, *(file for file, _ in store.skipped)]
    return {key for key, _ in with_keys(names)}
