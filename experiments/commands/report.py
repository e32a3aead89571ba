"""The command `run.py report`: its words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from experiments.commands.flags import Output, Tracking


def report(
    study: str | None = None,
    /,
    *,
    check: Annotated[
        bool, Parameter(help="write nothing; exit 1 where the README is not what the committed results give")
    ] = False,
    latex: Annotated[bool, Parameter(help="write the table for a paper, too")] = False,
    html: Annotated[
        Path | None, Parameter(help="write one self-contained page to this file", show_default=False)
    ] = None,
    verify: Annotated[
        int, Parameter(help="train so many runs again and compare their scores bit for bit", show_default=False)
    ] = 0,
    data_dir: Annotated[
        Path | None, Parameter(help="with --verify: where the photographs lie", show_default=False)
    ] = None,
    photographs: Annotated[
        str | None,
        Parameter(
            help="draw the models' strip on these: synthetic, or a folder of images/ and masks/", show_default=False
        ),
    ] = None,
    credit: Annotated[
        str | None, Parameter(help="whose --photographs are, and their licence", show_default=False)
    ] = None,
    tag: Annotated[bool, Parameter(help="set the verdicts as tags of the runs in MLflow, too")] = False,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
    results_dir: Annotated[
        Path | None, Parameter(help="the committed results (default: analysis/results)", show_default=False)
    ] = None,
    readme: Annotated[
        Path | None, Parameter(help="the page with the tables (default: README.md)", show_default=False)
    ] = None,
) -> int:
    """Make tables, pictures and verdicts of a study, or of all, from the records or from the committed results.

    Example: python run.py report two_by_two --html two_by_two.html
    """
    from analysis.records.places import Places
    from analysis.report import report as command

    given = {"results": results_dir, "readme": readme}
    places = Places(output_dir, **{name: path for name, path in given.items() if path is not None})
    if verify:
        from experiments.studies import reproduce as verifying

        return verifying.command(places, study, verify, data_dir)
    if photographs is not None:
        from experiments.studies import photo_strip

        photo_strip.command(places, study, photographs, credit)
    if check:
        return command.check(places)
    reported = command.run(places, study, latex, html)
    if tag or tracking_uri is not None:
        from experiments.studies import mlflow_sync

        for found in reported.values():
            mlflow_sync.write(found, output_dir, tracking_uri)
    return 0
