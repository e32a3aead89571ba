"""The commands `run.py judge` and `run.py score`: verdicts on anybody's scores, and scores of anybody's masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from cyclopts.types import NonNegativeFloat

from experiments.commands.flags import flag, many, setting, switch
from experiments.config import types
from registry import InputError

Column = str | None
Json = Annotated[str | None, flag("write JSON to this file, or to standard output (-)", allow_leading_hyphen=True)]
Accept = Annotated[
    tuple[str, str] | None,
    flag("BASE CANDIDATE: exit 0 if the candidate is better, 3 if not, 4 if undecided", negative=()),
]
Ledger = Annotated[Path | None, flag("with --accept: screen first, charge confirmations only, over many questions")]


def judge(
    scores: Annotated[Path, flag("CSV with a heading: a row per score, or with --wide a column per method")],
    /,
    *,
    score: Annotated[Column, flag("column of scores")] = None,
    cell: Annotated[list[str] | None, many("column or columns that name what is compared")] = None,
    wide: Annotated[list[str] | None, many("columns of scores, one per method, instead of --score and --cell")] = None,
    seed: Annotated[Column, flag("column of the training seed")] = None,
    group: Annotated[Column, flag("column of the patient, slide, car ... that several images share")] = None,
    image: Annotated[Column, flag("column of the image")] = None,
    dataset: Annotated[Column, flag("column of the dataset; each is judged by itself")] = None,
    baseline: Annotated[str | None, flag("compare every other cell with this one (default: all pairs)")] = None,
    rope: Annotated[NonNegativeFloat, flag("difference that does not matter (default: 0.001)")] = 0.001,
    lower_is_better: Annotated[bool, switch("smaller scores are better, as for HD95")] = False,
    level: Annotated[float, flag("level of the intervals (default: 0.95)")] = 0.95,
    json: Json = None,
    html: Annotated[Path | None, flag("write one self-contained HTML page to this file")] = None,
    accept: Accept = None,
    ledger: Ledger = None,
) -> int:
    """Judge the scores in a CSV of any origin: which method is better, and can the answer be believed?

    Example: python run.py judge scores.csv --score dice --cell model loss --seed seed --group patient
    """
    from analysis.records.score_table import Columns, groups_are_images, read_score_tables
    from analysis.verdicts import judge as verdicts

    _refuse_flags(bool(wide), bool(cell), bool(score), level, rope, json)
    _refuse_gate_flags(accept, ledger, baseline)
    files = _output_files(scores, json, html, ledger)
    columns = Columns(score or "score", tuple(cell or ()), seed, group, image, dataset, tuple(wide or ()))
    tables = read_score_tables(scores, columns)
    question = verdicts.Question(baseline, rope, not lower_is_better, level)
    unit = "group" if group and not groups_are_images(scores, columns) else "image" if image else ""
    judgements = verdicts.judge(tables, unit, seed is not None, question) if json or html or not accept else []
    code = _accept(accept, tables, unit, seed is not None, question, ledger, json == "-") if accept else 0
    if html:
        _write(files["--html"], html, _page(scores, judgements, question))
    if "--json" in files:
        _write(files["--json"], Path(str(json)), f"{_as_json(judgements)}\n")
    if json == "-":
        print(_as_json(judgements))
    elif not accept:
        _show(judgements, question)
    return code


def _refuse_gate_flags(accept: tuple[str, str] | None, ledger: Path | None, baseline: str | None) -> None:
    if accept is None and ledger is not None:
        raise InputError("--ledger goes with --accept BASE CANDIDATE.")
    if accept is not None and baseline is not None:
        raise InputError("--accept BASE CANDIDATE names the base itself: leave out --baseline.")


def _refuse_flags(wide: bool, cell: bool, score: bool, level: float, rope: float, json: str | None) -> None:
    if json and json.startswith("-") and json != "-":  # a flag would be taken for the file, and have no effect
        raise InputError(f"--json takes a file or -, not {json}.")
    """Raise InputError for flags that do not go together, or values that mean nothing."""
    if not math.isfinite(rope):
        raise InputError("--rope takes a number, the largest difference that does not matter.")
    if wide and (cell or score):
        raise InputError("--wide names the columns of scores itself: leave out --score and --cell.")
    if not wide and not (cell and score):
        raise InputError("Name the columns: --score COLUMN and --cell COLUMN, or --wide COLUMN COLUMN ...")
    if not 0 < level < 1:
        raise InputError(f"--level takes a probability between 0 and 1, such as 0.95, not {level:g}.")


def score(
    predictions: Annotated[Path, flag("folder of predicted masks")],
    truth: Annotated[Path, flag("folder of true masks, under the same names")],
    /,
    *,
    output: Annotated[Path, flag("CSV to write")],
    group_pattern: Annotated[str | None, flag("regular expression whose (first) group names an image's group")] = None,
    foreground: Annotated[types.Foreground | None, setting("foreground")] = None,
    cell: Annotated[str | None, flag("name of what is scored (default: the folder's name)")] = None,
    seed: Annotated[types.CountOrZero | None, flag("training seed of the predictions")] = None,
    append: Annotated[bool, switch("add to an existing file")] = False,
    list_skipped: Annotated[bool, switch("name each file that was left out of the folders, and why")] = False,
) -> int:
    """Score masks of any origin against their ground truth, as judge reads it.

    Example: python run.py score predicted masks --output scores.csv --cell nnunet --seed 0
    """
    from analysis.records.output_files import OutputFiles
    from experiments.evaluation import score_masks as scoring
    from experiments.inference.input_files import report_skipped
    from experiments.runtime.interrupts import Stop, interruptible
    from experiments.runtime.progress import progress_counter

    def work(stop: Stop) -> int:
        samples, left_out, skipped = scoring.pair_masks(predictions, truth, group_pattern)
        read = [path for sample in samples for path in sample.files]
        OutputFiles.beside(output).check([output.name], read)
        with progress_counter("scoring masks", stop.check) as show:
            name = (cell or predictions.resolve().name).encode("utf-8", "replace").decode("utf-8")
            label = "" if seed is None else str(seed)
            rows = scoring.score_masks(samples, name, label, show, skipped, foreground or ())
        cells = scoring.write_rows(output, rows, append, read)
        print(f"{len(rows)} masks, {scoring.mean_dice(rows)}. Written: {output}")
        names = scoring.suspicious_names(samples, rows) if group_pattern is None else ""
        for notice in filter(None, (scoring.nothing_marked(rows), names, scoring.UNKNOWN)):
            print(notice)
        named, pattern = [str(value) for value in foreground or ()], [group_pattern] if group_pattern else []
        flags = {"--group-pattern": pattern, "--foreground": named, "--seed": [label] if label else []}
        print("\n".join(_after_score(truth, output, cells, flags)))
        return report_skipped(skipped, left_out, list_skipped)

    return interruptible(work)


def _after_score(truth: Path, output: Path, cells: int, flags: dict[str, list[str]]) -> list[str]:
    """What to type after `score`: of one method only, that another one comes first, with the same `flags`."""
    import shlex

    where, given = shlex.quote(str(output)), {name: values for name, values in flags.items() if values}
    units = "--group group --image image" if "--group-pattern" in given else "--image image"
    by_seed = " --seed seed" if "--seed" in given else ""
    judging = f"python run.py judge {where} --score dice --cell cell{by_seed} {units}"
    if cells > 1:
        return [f"Next: {judging}"]
    words = [str(truth), *(word for name, values in given.items() for word in (name, *values))]
    other = f"python run.py score OTHER {shlex.join(words)} --output {where} --append"
    return [f"Next, for OTHER, the method to compare it with: {other}", f"Then: {judging}"]


def _output_files(scores: Path, json: str | None, html: Path | None, ledger: Path | None) -> dict[str, Any]:
    """Where --json and --html are written, by flag. Raises InputError where either would replace a file."""
    from analysis.records.output_files import OutputFiles, refuse_shared_names

    named = {"--json": Path(json) if json and json != "-" else None, "--html": html}
    paths = {flag_name: path for flag_name, path in named.items() if path is not None}
    all_paths = paths | ({"--ledger": ledger} if ledger is not None else {})
    advice = "Name two files."
    refuse_shared_names([(Path(name), path.resolve()) for name, path in all_paths.items()], Path(), advice)
    files = {}
    for name, path in paths.items():
        files[name] = OutputFiles.beside(path, name)
        files[name].check([path.name], [scores])
    return files


def _page(scores: Path, judgements: list[Any], question: Any) -> str:
    from analysis.report.html import judge_page

    return judge_page(scores.name, judgements, question)


def _write(files: Any, path: Path, text: str) -> None:
    from experiments.runtime.errors import disk_errors

    with disk_errors(path, f"another file with {files.flag}"):
        files.write(path.name, text.encode("utf-8"))


def _accept(
    names: tuple[str, str], tables: Any, unit: str, seeded: bool, question: Any, ledger: Path | None, json_too: bool
) -> int:
    """Decide on the candidate and say so: on stderr where stdout holds JSON."""
    import dataclasses
    import sys

    from analysis.text.judge_sentences import interval
    from analysis.verdicts.judge import judge as judge_tables
    from analysis.verdicts.question_ledger import decide, decide_with_ledger

    base, candidate = names
    if len(tables) > 1:
        raise InputError(f"--accept decides on one data set, and the table holds {len(tables)}: leave out --dataset.")
    cells = next(iter(tables.values()))
    for name in names:
        if name not in cells:
            raise InputError(f"The table has no cell '{name}'. Its cells: {', '.join(cells)}.")
    if base == candidate:
        raise InputError("--accept takes two different cells, BASE and CANDIDATE.")
    pair = {"": {name: cells[name] for name in names}}
    judgement = judge_tables(pair, unit, seeded, dataclasses.replace(question, baseline=base))[0]
    arguments = cells[base], cells[candidate], judgement.kind, question
    decision = decide_with_ledger(names, *arguments, ledger) if ledger else decide(*arguments)
    lines = [f"{candidate} - {base}: {interval(decision.comparison, 4, decision.level)}", decision.sentence]
    lines += judgement.conditions
    if ledger:
        lines.append("Repeated use of one test set lies outside the ledger's guarantee: change it from time to time.")
    print("\n".join(lines), file=sys.stderr if json_too else sys.stdout)
    return decision.code


def _show(judgements: list[Any], question: Any) -> None:
    import sys

    from rich.console import Console
    from rich.markup import escape

    from analysis.text import judge_sentences as text

    console = Console(width=None if sys.stdout.isatty() else 120)
    if len(judgements) > 1:
        console.print(_overview(judgements, text))
        lines = [
            *(f"{one.name}: {repeat}" for one in judgements for repeat in map(text.repeated, one.repeats)),
            *text.shared_conditions(judgements),
            text.overall(judgements),
        ]
    else:
        (one,) = judgements
        console.print(_cells(one, text))
        lines = [
            *text.sentences(one, question),
            *text.summary(one, question),
            *one.conditions,
        ]
    for line in lines:
        console.print(escape(line), highlight=False)


def _cells(judgement: Any, text: Any) -> Any:
    """A row per cell, the best first."""
    from rich.markup import escape
    from rich.table import Table

    headings, rows = text.score_table(judgement)
    table = Table()
    for heading in ("", *headings):
        table.add_column(heading, overflow="fold", justify="left" if heading == "cell" else "right")
    for rank, row in enumerate(rows, 1):
        table.add_row(str(rank), *map(escape, row))
    return table


def _overview(judgements: list[Any], text: Any) -> Any:
    """A row per data set: the two highest, whether they are separated, whether the winner depends on the seed."""
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("data set", "first", "second", "separated", "winner by seed", "possible bests"):
        table.add_column(heading, overflow="fold")
    for one in judgements:
        places = text.places(one)
        (first, high), (second, low), *_ = one.means.items()
        separated = "-" if one.leaders_differ is None else "yes" if one.leaders_differ else "no"
        ties = len(one.winner_by_seed) > 1 and set(one.winner_by_seed.values()) == {None}
        seeds = "-" if len(one.winner_by_seed) < 2 else "differs" if one.depends_on_seed else "the same"
        seeds = "ties" if ties else seeds
        possible = f"{len(one.best_set)} of {len(one.means)}"
        names = (f"{escape(cell)} {mean:.{places}f}" for cell, mean in ((first, high), (second, low)))
        table.add_row(escape(one.name), *names, separated, seeds, possible)
    return table


def _as_json(judgements: list[Any]) -> str:
    import json

    def number(value: float | None) -> float | None:
        return value if value is not None and math.isfinite(value) else None

    content = {
        "datasets": [
            {
                "name": one.name,
                "comparisons": [
                    {
                        "a": pair.a,
                        "b": pair.b,
                        "difference": number(pair.comparison.difference),
                        "low": number(pair.comparison.low),
                        "high": number(pair.comparison.high),
                        "p": number(pair.comparison.p),
                        "verdict": pair.comparison.verdict,
                        "units_to_decide": pair.units_to_decide,
                    }
                    for pair in one.pairs
                ],
                "means": one.means,
                "best_set": list(one.best_set),
                "winner_by_seed": one.winner_by_seed,
                "detectable": number(one.detectable),
                "conditions": one.conditions,
                "repeats": [{"score": r.score, "runs": [list(place) for place in r.places]} for r in one.repeats],
            }
            for one in judgements
        ]
    }
    return json.dumps(content, indent=1, ensure_ascii=False)
