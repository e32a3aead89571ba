"""The command `run.py report`. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.commands.flags import OutputDir, TrackingUri, flag, switch
from experiments.config import types

Check = Annotated[
    bool, switch("write nothing; exit 1 where a page, picture or table is not what the committed results give")
]
Verify = Annotated[
    types.CountOrZero, flag("re-run N training runs and check that scores are bit-identical", metavar="N")
]
Photographs = Annotated[
    str | None, flag("images of the qualitative figure: synthetic, or a folder of images/ and masks/")
]


def report(
    study: Annotated[str | None, flag("name of the study (default: all)")] = None,
    /,
    *,
    check: Check = False,
    latex: Annotated[bool, switch("also write a LaTeX table")] = False,
    html: Annotated[Path | None, flag("write one self-contained HTML page to this file")] = None,
    verify: Verify = 0,
    data_dir: Annotated[Path | None, flag("with --verify: dataset directory")] = None,
    photographs: Photographs = None,
    credit: Annotated[str | None, flag("source and licence of --photographs")] = None,
    tag: Annotated[bool, switch("also set the verdicts as tags of the runs in MLflow")] = False,
    output_dir: OutputDir = Path("outputs"),
    tracking_uri: TrackingUri = None,
    results_dir: Annotated[Path | None, flag("directory of committed results (default: analysis/results)")] = None,
    readme: Annotated[Path | None, flag("README whose folder holds docs/ with the pages (default: README.md)")] = None,
) -> int:
    """Write answer, tables, pictures and pages of one study, or of all, from run folders or committed results.

    Example: python run.py report two_by_two --html two_by_two.html
    """
    from analysis.records.study_paths import StudyPaths
    from analysis.report import report as command

    given = {"results": results_dir, "readme": readme}
    paths = StudyPaths(output_dir, **{name: path for name, path in given.items() if path is not None})
    if html is not None and not (check or verify):
        command.check_html(paths, html)
    if verify:
        from experiments.studies import reproduce as verifying

        return verifying.command(paths, study, verify, data_dir)
    if check:
        return command.check(paths)
    if photographs is not None:
        from experiments.studies import qualitative_figure

        qualitative_figure.command(paths, study, photographs, credit)
    reported = command.report_studies(paths, study, latex, html)
    if tag or tracking_uri is not None:
        from experiments.studies import sync_runs

        for found in reported.values():
            sync_runs.tag_verdicts(found, output_dir, tracking_uri)
    return 0
