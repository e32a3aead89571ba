"""Paths of studies: their records, committed results and pages; which studies there are, and one loaded from both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from analysis.records import committed
from analysis.records.committed import merge_studies
from analysis.records.files import write_atomically
from analysis.records.load_runs import load_recorded_study, planned_studies
from analysis.records.output_files import OutputFiles
from analysis.records.study_results import Study
from registry import InputError, did_you_mean

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "analysis" / "results"
PLANS = ROOT / "experiments" / "studies"  # the study files of the project
NAME = re.compile(r"[a-z0-9_][a-z0-9_-]*")


@dataclass(frozen=True)
class StudyPaths:
    """The folders of records and of committed results, and the README whose folder has the pages."""

    output_dir: Path = Path("outputs")
    results: Path = RESULTS
    readme: Path = README

    def check_results(self, files: Mapping[Path, bytes]) -> None:
        """Raise InputError if one of the files under `results` would replace one that is not the project's own.

        Those of this checkout are its own, and what holds these bytes already is not replaced.
        """
        if not self._own:
            changed = [path for path, content in files.items() if not _holds(path, content)]
            self._files().check(path.relative_to(self.results) for path in changed)

    def write_results(self, files: Mapping[Path, bytes]) -> None:
        """Write files under `results`. Raises InputError, before the first one, as `check_results` does."""
        self.check_results(files)
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._own:
                write_atomically(path, content)
            elif not _holds(path, content):
                self._files().write(path.relative_to(self.results), content)

    def delete_result(self, path: Path) -> None:
        """Delete a file under `results` if it is the project's own."""
        if self._own:
            path.unlink(missing_ok=True)
        else:
            self._files().discard(path.relative_to(self.results))

    def _files(self) -> OutputFiles:
        return OutputFiles(self.results, "--results-dir")

    @property
    def _own(self) -> bool:
        return self.results.resolve() == RESULTS.resolve()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def study_names(paths: StudyPaths, asked: str | None) -> list[str]:
    """List the study asked for, or all that are known. Raises InputError for an unknown one, with the nearest name."""
    known = sorted({*planned_studies(paths.output_dir), *committed.committed_studies(paths.results)})
    if asked is None:
        return known
    if asked not in known or not NAME.fullmatch(asked):
        raise InputError(
            f"There is no plan of a study '{asked}'{did_you_mean(asked, known)} under {paths.output_dir / 'studies'} "
            f"and no result under {paths.results}. Begin one with: python run.py grid --name "
            f"{asked if NAME.fullmatch(asked) else 'NAME'} --models … --losses …, or python run.py study NAME"
        )
    return [asked]


def one_study(paths: StudyPaths, asked: str | None, flag: str) -> str:
    """The study asked for, or the only one there is. Raises InputError where there are several or none."""
    known = study_names(paths, asked)
    if len(known) != 1:
        choices = f"it is one of {', '.join(known)}" if known else "there is none yet"
        raise InputError(f"{flag} is for one study, and {choices}. Type: python run.py report NAME {flag}")
    return known[0]


def load_study(paths: StudyPaths, name: str) -> Study:
    """Load the study as it is known now: its records, and the committed rows where the records lack the run.

    Those may be of another study whose run is the same, as the 1,500-step runs of `more_training` are.
    """
    new, old = load_recorded_study(paths.output_dir, name), committed.read_study(paths.results, name)
    found = merge_studies(old, new) if new is not None and old is not None else new or old
    if found is None:
        raise InputError(
            f"The plan of the study {name} cannot be read. Write it again with: python run.py study {name}"
        )
    return committed.with_shared_runs(found, paths.results)
