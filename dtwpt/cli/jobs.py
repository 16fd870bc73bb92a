"""The two kinds of extraction: into a table, and into a resumable store."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dtwpt.cli.terminal import (
    FAILED,
    STOP_SIGNALS,
    Stopped,
    note,
    one_line,
    plural,
    quiet_libraries,
    show_progress,
)
from dtwpt.cli.watched import watched

if TYPE_CHECKING:
    from dtwpt.extract import FeatureStore, FeatureTable, Settings
    from dtwpt.extract.inputs import Inputs


@dataclass
class Job:
    """The requested job, and its progress."""

    paths: Inputs
    output: str
    settings: Settings
    workers: int | None
    device: str
    engine: str
    address: str | None
    on_error: str
    report: str | None
    labels: str | None = None
    timeout: float | None = None
    progress: str | None = None
    started: float = field(default_factory=time.perf_counter)
    before: int | None = None  # images finished by earlier runs; None: not started
    done: int = 0
    total: int = 0

    def outputs(self) -> list[str]:
        """Return the outputs, after checking that they do not overwrite inputs."""
        from dtwpt.extract.files import files_of
        from dtwpt.extract.inputs import check_outputs

        outputs = files_of(self.output) + ([self.report] if self.report is not None else [])
        check_outputs(outputs, self.paths)
        return outputs

    def optional(self) -> dict[str, Any]:
        """Return the arguments that were given explicitly."""
        given = {"labels": self.labels, "timeout": self.timeout}
        return {name: value for name, value in given.items() if value is not None}

    def follow(self, show: Callable[[int, int], None] | None) -> Callable[[int, int], None]:
        """Return the progress display."""

        def progress(done: int, total: int) -> None:
            if self.before is None:
                self.before = done
            self.done, self.total = done, total
            if show is not None:
                show(done, total)

        return progress

    def outcome(self, result: FeatureTable | FeatureStore) -> str:
        """Return a summary of the run, for the terminal."""
        seconds = time.perf_counter() - self.started
        count, length = result.features.shape
        computed = self.done - (self.before or 0)
        rate = f"{seconds:.1f} s ({computed / seconds:.1f} images/s)" if computed else "nothing new"
        earlier = f", {plural(self.before, 'file')} earlier" if self.before else ""
        left_out = f", {len(result.skipped)} skipped" if result.skipped else ""
        return f"{plural(count, 'image')} x {plural(length, 'feature')}{earlier}{left_out}, {rate}"

    @contextmanager
    def reported(self, failures: Callable[[], Any]) -> Iterator[None]:
        """Write the report, even if the run fails."""
        if self.report is None:
            yield
            return
        from dtwpt.extract.atomic import check_writable

        check_writable(self.report)
        try:
            yield
        except BaseException as error:
            status = "stopped" if isinstance(error, Stopped) else "failed"
            self._write_report(self.report, status, _told(error), failures)
            raise
        self._write_report(self.report, "finished", None, failures)

    def _write_report(
        self, path: str, status: str, message: str | None, failures: Callable[[], Any]
    ) -> None:
        """Write JSON lines: each file without features, with the reason, then a summary.

        They are ASCII: other characters are escaped, and so are bytes of a name that are not text
        (as those from U+DC80 to U+DCFF, which ``os.fsencode`` turns back).
        """
        from dtwpt.extract.atomic import replacing

        seconds = time.perf_counter() - self.started
        summary = {
            "status": status,
            "message": message,
            "output": self.output,
            "images": self.total,
            "finished": self.done,
            "finished_earlier": self.before or 0,
            "seconds": round(seconds, 3),
            "workers": self.workers,
            "device": self.device,
            "engine": self.engine,
            "settings": self.settings.to_dict(),
        }
        with replacing(path) as file:
            for name, reason in failures():
                file.write(json.dumps({"file": name, "reason": reason}).encode("ascii") + b"\n")
            file.write(json.dumps({"summary": summary}).encode("ascii") + b"\n")

    def watch(self) -> None:
        """Continue in a watched child process: Ray may end it without an error."""

        def died(how: str) -> int:
            message = (
                f"Ray has ended the run ({how}): its head, or what runs of it on this machine, is "
                f"gone; {self.kept}"
            )
            note(f"dtwpt: {message}")
            if self.report is not None:
                self._report_death(self.report, message)
            return FAILED

        watched(died, STOP_SIGNALS)

    def _report_death(self, path: str, message: str) -> None:
        from dtwpt.extract.store.reader import open_store

        skipped: list[tuple[str, str]] = []
        with suppress(OSError, ValueError):  # there is none yet
            store = open_store(self.output)
            skipped = list(store.skipped)
            self.done = len(store.files) + len(skipped)
            self.total = self.done + len(store.waiting)
        try:
            self._write_report(path, "failed", message, lambda: skipped)
        except OSError as error:
            note(f"dtwpt: {error}")

    @property
    def kept(self) -> str:
        """State of the store when a run ends early."""
        return f"progress saved in {self.output}; rerun the command to resume"


@contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print a store's warnings on the terminal."""
    from dtwpt.extract.store.manifest import StoreWarning

    with warnings.catch_warnings():
        warnings.simplefilter("always", StoreWarning)
        show = warnings.showwarning

        def tell(message: Any, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, StoreWarning):
                note(f"note: {message}")
            else:
                show(message, category, *rest, **more)

        warnings.showwarning = tell
        yield


def _told(error: BaseException) -> str:
    return f"signal {error.number}" if isinstance(error, Stopped) else one_line(str(error))


def to_table(job: Job) -> FeatureTable:
    """Extract into a table in memory, and save it."""
    from dtwpt.extract import Skipped, find_images, save
    from dtwpt.extract import extract as run
    from dtwpt.extract.inputs import sparing

    # Before writing the report, which might overwrite an input.
    files = list(sparing(job.outputs(), find_images(job.paths)))
    failures: list[Skipped] = []
    with job.reported(lambda: failures), quiet_libraries(), show_progress(job.progress) as show:
        table = run(
            files,
            job.settings,
            workers=job.workers or 1,
            device=job.device,
            on_error=job.on_error,
            **job.optional(),
            progress=job.follow(show),
            on_skip=failures.append,
        )
        save(table, job.output)
    return table


def to_store(
    job: Job, *, restart: bool, retry_skipped: bool, prune: bool, check: str
) -> FeatureStore:
    """Extract into a store, or resume it."""
    from dtwpt.extract import extract_to_store
    from dtwpt.extract.inputs import check_spared, iterate_images

    job.outputs()
    if job.report is not None and os.path.isfile(job.report):  # of an earlier run, mostly
        check_spared([job.report], iterate_images(job.paths))

    def failures() -> Iterator[tuple[str, str]]:
        from dtwpt.extract.store.reader import skipped_of

        return skipped_of(job.output) if job.before is not None else iter(())

    try:
        with (
            job.reported(failures),
            quiet_libraries(),
            warnings_as_notes(),
            show_progress(job.progress) as show,
        ):
            return extract_to_store(
                job.paths,
                job.output,
                job.settings,
                workers=job.workers,
                device=job.device,
                engine=job.engine,
                address=job.address,
                on_error=job.on_error,
                check=check,
                retry_skipped=retry_skipped,
                prune=prune,
                restart=restart,
                **job.optional(),
                progress=job.follow(show),
            )
    except Stopped as stopped:
        if job.before is not None:
            stopped.outcome = job.kept
        raise
    except OSError as error:
        if job.before is not None:
            raise OSError(f"{error.strerror or error}; {job.kept}") from error
        raise
