"""The parts of the README that are rendered, between markers, and never typed: choices, the demo, and every study.

python run.py report           write them
python run.py report --check   exit 1 where the README says something else

A study stands between `<!-- study NAME en -->` and `<!-- /study NAME en -->`, and in Chinese between the same with `zh`; its long
form, in docs/studies.md beside the README, between the same with `long` in place of `study`.

What the demo prints is kept in docs/demo.txt; to take it anew: rm -r outputs data/synthetic; make -s demo > docs/demo.txt
What the steps of the walk print is kept in docs/walk; to take it anew: make walk
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from analysis.records import committed, test_set_ledger
from analysis.records.places import README, RESULTS
from analysis.text import markdown, robustness, tables
from analysis.text.long_form import long_form, within
from analysis.text.markdown import render
from analysis.text.notes import notes
from analysis.text.sentences import sentences
from analysis.text.wording import LANGUAGES
from analysis.verdicts.answer import Answer, answer
from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, InputError, Table

ALT = {
    "intervals": {"en": "Every cell's Dice with its interval", "zh": "每个单元的 Dice 及其区间"},
    "simple-effects": {
        "en": "What changes within each combination of the other factors",
        "zh": "其余因素的每种组合之内的差别",
    },
}

OTHERS = {
    "en": "Dice of the same networks on corrupted photographs of the test cars (mean over three strengths) and on photographs from elsewhere; ★: not "
    "separated from the top in that column (a cell whose scores vary much may keep it with a low mean). Exploratory: each column is adjusted for its own pairs alone.",
    "zh": "同样的网络在测试车的退化照片上（三种强度的平均）以及在其他来源的照片上的 Dice；★：该列中与最好的没有区分开（分数波动大的单元，均值低也可能保留）。探索性结果：每一列只对本列的成对比较做了校正。",
}

AGAINST = {
    "en": "What each other level of {factor} changes against {baseline} there, over the combinations of all else that both have: Dice, with intervals "
    "adjusted for all pairs of levels, of that column alone. Exploratory.",
    "zh": "在这些照片上，{factor} 的其他各水平与 {baseline} 的 Dice 之差（在两者都有的、其余因素的各组合上取平均）；每列单独校正，区间按该列全部水平的两两比较校正（不只是与 {baseline} 的比较）。探索性结果。",
}

OTHERS_ALT = {"en": "Dice against the strength of each corruption", "zh": "Dice 随各种退化强度的变化"}

HEADINGS = {"en": ("name", "what it is", "source"), "zh": ("名称", "说明", "来源")}

KINDS = {
    "en": {"--model": "models", "--loss": "losses", "--augment": "augmentations", "--data": "data sets"},
    "zh": {"--model": "模型", "--loss": "损失函数", "--augment": "数据增强", "--data": "数据集"},
}


def read(readme: Path) -> str:
    """The text of a README. Raises InputError where there is none."""
    try:
        return readme.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"The page {readme} cannot be read ({' '.join(str(error).split())}). Name one with --readme, or make an empty file."
        ) from None


def choices(language: str) -> str:
    """The registry as Markdown tables in English ("en") or Chinese ("zh")."""
    tables = {"--model": MODELS, "--loss": LOSSES, "--augment": AUGMENTATIONS, "--data": DATASETS}
    return "\n\n".join(_table(KINDS[language][flag], flag, table, language) for flag, table in tables.items())


def _table(kind: str, flag: str, table: Table, language: str) -> str:
    rows = [
        f"| `{entry.name}` | {entry.summary if language == 'en' else entry.summary_zh} | {entry.source} |"
        for entry in table.values()
    ]
    return "\n".join((f"**{kind}** (`{flag}`)\n", "| " + " | ".join(HEADINGS[language]) + " |", "|---|---|---|", *rows))


def rendered(
    text: str, readme: Path = README, results: Path = RESULTS, known: Mapping[str, Answer] | None = None
) -> str:
    """The README's text as it should be, from the registry, docs/demo.txt, docs/walk and the committed results of its studies.

    `known` holds answers that were just written, so that they need not be read and found again. Raises InputError for a study without results, and ValueError where a marker is missing.
    """
    parts = {f"choices {language}": choices(language) for language in LANGUAGES}
    docs = readme.parent / "docs"
    printed = {"demo": docs / "demo.txt"} | {
        f"walk {path.stem}": path for path in sorted((docs / "walk").glob("*.txt"))
    }
    parts |= {
        name: f"```text\n{path.read_text(encoding='utf-8').strip()}\n```"
        for name, path in printed.items()
        if path.exists()
    }
    parts = {name: part for name, part in parts.items() if f"<!-- {name} -->" in text or readme == README}
    for form, write in {"study": section, "long": long_form}.items():
        for name in studies(text, form):
            found = (known or {}).get(name) or _found(readme, results, name)
            pictures = Path(os.path.relpath(results / name, readme.parent)).as_posix()
            readings, drawn = test_set_ledger.read(results), {path.stem for path in (results / name).glob("*.svg")}
            parts |= {
                f"{form} {name} {language}": write(found, readings, language, pictures, drawn) for language in LANGUAGES
            }
    return render(text, parts)


def pages(readme: Path) -> list[Path]:
    """The pages that show studies: the README and, where there is one beside it, docs/studies.md."""
    return [path for path in (readme, readme.parent / "docs" / "studies.md") if path == readme or path.exists()]


def _found(readme: Path, results: Path, name: str) -> Answer:
    study = committed.read(results, name)
    if study is None:
        raise InputError(
            f"{readme.name} shows the study {name}, but {results / name} is missing. Type: python run.py report {name}"
        )
    return answer(study)


def studies(text: str, form: str = "study") -> list[str]:
    """The names of the studies that a page has a place for, in either language."""
    return list(dict.fromkeys(re.findall(rf"^<!-- {form} ([a-z0-9_-]+) (?:en|zh) -->$", text, re.MULTILINE)))


def section(found: Answer, readings: pd.DataFrame, language: str, pictures: str, drawn: Collection[str]) -> str:
    """A study's question, answer, picture, table and notes in Markdown; `pictures` is the folder of those `drawn`, seen from the README."""
    first, *others = (markdown.safe(sentence) for sentence in sentences(found, language))
    question = found.study.plan.get("question", {}).get(language, "")
    lines = [f"*{markdown.safe(question)}*"] if question else []
    lines.append(
        f"**{first}** {(' ' if language == 'en' else '').join(others)}".strip()
    )  # GitHub wants the space after a bold 。
    best = "simple-effects" if "simple-effects" in drawn else "intervals"
    if best in drawn:
        lines.append(f"![{ALT[best][language]}]({pictures}/{best}.svg)")
    lines.append(markdown.markdown(tables.table(found, language)))
    lines.append("\n".join(f"- {markdown.safe(note)}" for note in notes(found, readings, language)))
    lines += within(found, language)
    under = robustness.table(found, language)
    if under is not None:
        picture = [f"![{OTHERS_ALT[language]}]({pictures}/robustness.svg)"] if "robustness" in drawn else []
        lines += [OTHERS[language], *picture, markdown.markdown(under)]
    for factor, baseline in found.study.plan.get("design", {}).get("baseline", {}).items():
        differences = robustness.differences(found, factor, baseline, language)
        if differences is not None:
            told = robustness.verdicts(found, factor, baseline, language)
            lines += [
                markdown.safe(AGAINST[language].format(factor=factor, baseline=baseline)),
                markdown.safe(told),
                markdown.markdown(differences),
            ]
    return "\n\n".join(lines)


def check(readme: Path = README, results: Path = RESULTS) -> list[str]:
    """What in the README, or among the committed results, is not as the committed results say: a sentence each."""
    known, found = {}, []
    for name in committed.committed(results):
        try:
            known[name] = _found(readme, results, name)
            found += _altered(results, known[name])
        except InputError as error:
            found.append(str(error))
    for page in pages(readme):
        text = read(page)
        try:
            made = rendered(text, page, results, known)
        except InputError as error:
            if str(error) in found:  # told already, with what else is wrong
                continue
            raise
        if made != text:
            lines = zip([*text.splitlines(), ""], [*made.splitlines(), ""], strict=False)
            number, (there, due) = next((n, pair) for n, pair in enumerate(lines, 1) if pair[0] != pair[1])
            told = f"from line {number} on: '{there[:80]}' should be '{due[:80]}'"
            found.append(
                f"{page.name} differs from what the committed results give, {told}. Type: python run.py report"
            )
    return found


def _altered(results: Path, found: Answer) -> list[str]:
    """The numbers in runs.csv, and the table for a paper, are what the scores give; a hand that changed either is noticed."""
    name = found.study.name
    due = {
        "runs.csv": (committed.files(found.study)["runs.csv"], ""),
        f"{name}.tex": (tables.latex(found).encode(), " --latex"),
    }
    return [
        f"{path} differs from what scores.csv.gz gives. Type: python run.py report {name}{flag}"
        for path, (made, flag) in ((results / name / file, how) for file, how in due.items())
        if path.exists() and path.read_bytes() != made
    ]


def main() -> int:
    """Write the rendered parts."""
    for page in pages(README):
        page.write_text(rendered(page.read_text(encoding="utf-8"), page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
