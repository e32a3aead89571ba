"""The parts of the README that are rendered, between markers, and never typed.

python -m analysis.readme           write them
python -m analysis.readme --check   exit 1 where the README says something else

What the demo prints is kept in docs/demo.txt; to take it anew: rm -r outputs data/synthetic; make -s demo > docs/demo.txt
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from registry import AUGMENTATIONS, DATASETS, LOSSES, MODELS, Table

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HEADINGS = {"en": ("name", "what it is", "source"), "zh": ("名称", "说明", "来源")}
KINDS = {
    "en": {"--model": "models", "--loss": "losses", "--augment": "augmentations", "--data": "data sets"},
    "zh": {"--model": "模型", "--loss": "损失函数", "--augment": "数据增强", "--data": "数据集"},
}


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


def render(text: str, parts: Mapping[str, str]) -> str:
    """`text` with each part between `<!-- NAME -->` and `<!-- /NAME -->`. Raises ValueError where a marker is missing."""
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
        text, found = pattern.subn(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(
                f"The README needs the markers <!-- {name} --> and <!-- /{name} --> once; they are there {found} times."
            )
    return text


def rendered(text: str) -> str:
    """The README's text as it should be."""
    demo = (ROOT / "docs" / "demo.txt").read_text(encoding="utf-8").strip()
    return render(text, {**{f"choices {language}": choices(language) for language in HEADINGS}, "demo": f"```text\n{demo}\n```"})


def main(words: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    if "--check" in words:
        return int(rendered(text) != text)
    README.write_text(rendered(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
