"""How a study is read today: labels, baselines and margins of its study file, laid over the plan as it was run.

study.json keeps the plan byte for byte. What only the reading needs may be added later, in the study file: how levels
are written, which level of a factor is its baseline, which differences are too small to matter. A comparison that was
not planned with its baseline stays exploratory, whatever the file says by now.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STUDY_FILES = Path(__file__).parent.parent.parent / "experiments" / "studies"
MARGIN = 0.001  # of averages, in Dice: differences within it are too small to matter


@dataclass(frozen=True)
class StudyReading:
    """What the verdicts and pages of a study need beside its records.

    Attributes:
        baselines: the level of each factor with which the others are compared.
        margin: half the width of the region of equivalence for averages over other factors, in Dice.
        cell_margin: the same for single cells.
        within: factors whose effect is also shown within each combination of some others, and these others.
        confirmatory: factors whose comparisons the plan named, together with their baseline, before the first score.
        labels: how factors and levels are written: plain text, or text by language.
        question: what the study asks, by language.
        kinds: a regular expression whose first group is the kind of a test image, by its name.
        notes: what no record gives: "limits", paragraphs by language; "data", where a study's own pairs come from.
    """

    baselines: Mapping[str, str]
    margin: float = MARGIN
    cell_margin: float = MARGIN
    within: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    confirmatory: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()  # factors that the plan named before the first score, with or without baseline
    labels: Mapping[str, Any] = field(default_factory=dict)
    question: Mapping[str, str] = field(default_factory=dict)
    kinds: str | None = None
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def read_study_reading(plan: Mapping[str, Any], study_files: Path = STUDY_FILES) -> StudyReading:
    """Combine a plan (the content of study.json) with the study file of its name, where there is one."""
    file = _study_file(study_files / f"{plan.get('name', '')}.toml")
    design, today = plan.get("design", {}), file.get("design", {})
    factors: dict[str, list[str]] = {name: list(levels) for name, levels in plan.get("factors", {}).items()}
    varied = [name for name, levels in factors.items() if len(levels) > 1]
    named = {**design.get("baseline", {}), **{k: str(v) for k, v in today.get("baseline", {}).items()}}
    baselines = {name: named[name] if named.get(name) in factors[name] else factors[name][0] for name in varied}
    margin = float(today.get("rope", design.get("rope", MARGIN)))
    cell_margin = today.get("cell_rope", design.get("cell_rope"))
    asked = today.get("simple_effects", design.get("simple_effects", []))
    within = {**design.get("within", {}), **today.get("within", {})}
    return StudyReading(
        baselines=baselines,
        margin=margin,
        cell_margin=float(cell_margin if cell_margin else margin * (2 if len(varied) > 1 else 1)),
        within={
            name: tuple(within.get(name, [other for other in varied if other != name]))
            for name in asked
            if name in varied and len(varied) > 1
        },
        confirmatory=frozenset(_confirmatory(design, today if file else design, factors, baselines)),
        named=frozenset(_named(design, today if file else design)),
        labels={**plan.get("labels", {}), **file.get("labels", {}), **file.get("kinds", {})},
        question={**plan.get("question", {}), **file.get("question", {})},
        kinds=today.get("kinds", design.get("kinds")),
        notes=file.get("notes", {}),
    )


def _named(design: Mapping[str, Any], today: Mapping[str, Any]) -> set[str]:
    """The factors that the plan named and that the study file, which may withdraw but not add, still names."""
    return (
        set() if design.get("extended_from") else {*design.get("confirmatory", [])} & {*today.get("confirmatory", [])}
    )


def _confirmatory(
    design: Mapping[str, Any], today: Mapping[str, Any], factors: Mapping[str, list[str]], baselines: Mapping[str, str]
) -> list[str]:
    """The factors that the plan named, and that the study file, which may withdraw but not add, still names.

    With two levels the comparison with the baseline is the only one that there is; with more, the plan must have named
    the baseline.
    """
    return [
        name
        for name in _named(design, today)
        if name in baselines and (len(factors[name]) == 2 or design.get("baseline", {}).get(name) == baselines[name])
    ]


def _study_file(path: Path) -> dict[str, Any]:
    """The content of a study file; nothing where there is none, or none that can be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
