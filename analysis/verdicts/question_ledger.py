"""Accept or discard a change, again and again on one test set, without fooling oneself.

A loop that tries hundreds of changes and keeps what scores higher keeps luck. Spending an error rate on every question
leaves none for each (200 questions at 5 % in all: an improvement of 2 SD is found in 2 % with 5 seeds). So a ledger
charges confirmations only:

    screening      the first call of a candidate: is it promising? Costs nothing and accepts nothing.
    confirmation   a promising candidate with seeds that were not seen before: these alone are compared with the base,
                   at (1 - level) / 20. At most 20 confirmations are charged to a ledger.

Whatever the screening looked at, a confirmation rejects a true "no better" with at most (1 - level) / 20, also with one
base shared by all questions, so that a ledger accepts anything false with at most 1 - level. The repeated use of one
test set (its images, not its seeds) lies outside this guarantee.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.records.files import write_atomically
from analysis.statistics.comparisons import Comparison, as_comparisons, stack
from analysis.verdicts.judge import Question, estimate, largest_difference
from registry import InputError

PLANNED = 20  # confirmations that a ledger can be charged with
PROMISING = 0.2  # two-sided p below which a higher mean is worth a confirmation
FEWEST, MOST = 3, 20  # new seeds that a confirmation asks for
ACCEPTED, REJECTED, UNDECIDED = 0, 3, 4  # exit codes
ENTRY: dict[str, Any] = {
    "base": str,
    "candidate": str,
    "data": str,
    "seeds": list,
    "stage": str,
    "exit": int,
    "sentence": str,
    "error": (int, float),
}
STAGES = ("screened", "refused", "confirmed")
CODES = {"better": ACCEPTED, "equivalent": REJECTED, "worse": REJECTED, "undecided": UNDECIDED}


@dataclass(frozen=True)
class Decision:
    """What becomes of a candidate: the exit code, one sentence, and the comparison candidate - base behind it."""

    code: int
    sentence: str
    comparison: Comparison
    level: float  # of the comparison's interval


def decide(base: pd.DataFrame, candidate: pd.DataFrame, kind: str, question: Question) -> Decision:
    """A single question, without a ledger. Tables have a row per seed and a column per group."""
    comparison = _compare(base, candidate, kind, question, 1 - question.level)
    said = {ACCEPTED: "Accepted: better than the base.", REJECTED: f"Rejected: {comparison.verdict}."}
    code = CODES[comparison.verdict]
    sentence = said.get(code, "Undecided: neither better nor equivalent or worse is shown.")
    return Decision(code, sentence, comparison, question.level)


def decide_with_ledger(
    names: tuple[str, str], base: pd.DataFrame, candidate: pd.DataFrame, kind: str, question: Question, path: Path
) -> Decision:
    """A question of many: screen it, or confirm it with seeds that the ledger has not seen, and write that down.

    Raises:
        InputError: for scores without seeds, or a ledger that cannot be read or was begun with another level.
    """
    if kind not in ("seeds", "seeds and groups", "one seed"):
        raise InputError(
            "--ledger needs a seed column: confirmations are made on seeds that were not seen. Add --seed."
        )
    path = _resolved(path)
    _read(path, question)  # before the lock, so that nothing is left beside a file that is no ledger
    with _locked(path):
        ledger = _read(path, question)
        digest = _digest(base, candidate, question)
        known = next((entry for entry in ledger["questions"] if entry["data"] == digest), None)
        if known is not None:  # the same data asked twice are one question
            again = _compare(base, _rows_asked(ledger, known, candidate), kind, question, known["error"])
            return Decision(known["exit"], known["sentence"], again, 1 - known["error"])
        decision, entry = _answer(ledger, names, base, candidate, kind, question)
        ledger["questions"].append(
            {
                "base": names[0],
                "candidate": names[1],
                "data": digest,
                "exit": decision.code,
                "sentence": decision.sentence,
                "seeds": [str(seed) for seed in candidate.index],
                "rows": _rows(candidate),
                **entry,
            }
        )
        write_atomically(path, json.dumps(ledger, indent=1).encode())
    return decision


def _rows_asked(ledger: dict[str, Any], known: dict[str, Any], candidate: pd.DataFrame) -> pd.DataFrame:
    """The rows that a question of the ledger was decided on: a confirmation takes those that were new to it."""
    if known["stage"] == "screened":
        return candidate
    names, earlier = (known["base"], known["candidate"]), ledger["questions"][: ledger["questions"].index(known)]
    return candidate[_not_seen([e for e in earlier if (e["base"], e["candidate"]) == names], candidate)]


def _answer(
    ledger: dict[str, Any],
    names: tuple[str, str],
    base: pd.DataFrame,
    candidate: pd.DataFrame,
    kind: str,
    question: Question,
) -> tuple[Decision, dict[str, Any]]:
    asked = [entry for entry in ledger["questions"] if (entry["base"], entry["candidate"]) == names]
    unseen = candidate[_not_seen(asked, candidate)]
    promising = any(entry["stage"] != "screened" or entry["exit"] == UNDECIDED for entry in asked)
    if promising and len(unseen) >= FEWEST:
        return _confirm(ledger, base, unseen, kind, question)
    return _screen(base, candidate, kind, question)


def _not_seen(asked: list[dict[str, Any]], candidate: pd.DataFrame) -> list[bool]:
    """Which rows are of seeds that were not seen: of a new label, and no copy of a row that was seen under another.

    Of a single score, one or two may be equal by rounding.
    """
    labels = {seed for entry in asked for seed in entry["seeds"]}
    rows = {row for entry in asked for row in entry.get("rows", [])}
    new = [str(seed) not in labels for seed in candidate.index]
    copied = [is_new and row in rows for is_new, row in zip(new, _rows(candidate), strict=True)]
    if candidate.shape[1] == 1 and sum(copied) < FEWEST:
        return new
    return [is_new and not copy for is_new, copy in zip(new, copied, strict=True)]


def _rows(table: pd.DataFrame) -> list[str]:
    """A digest of each seed's scores."""
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in table.to_numpy(float)]


def _screen(
    base: pd.DataFrame, candidate: pd.DataFrame, kind: str, question: Question
) -> tuple[Decision, dict[str, Any]]:
    comparison = _compare(base, candidate, kind, question, 1 - question.level)
    higher = comparison.difference > 0 if question.higher_is_better else comparison.difference < 0
    entry = {"stage": "screened", "error": 1 - question.level}
    if not higher or comparison.p > PROMISING:
        sentence = "Rejected at screening: not promising. Nothing was charged to the ledger."
        return Decision(REJECTED, sentence, comparison, question.level), entry
    seeds = min(max(FEWEST, len(candidate)), MOST)
    sentence = (
        f"Promising: run {seeds} more seeds of the candidate and ask again. "
        "Only seeds not seen before confirm it; nothing was charged to the ledger."
    )
    return Decision(UNDECIDED, sentence, comparison, question.level), entry


def _confirm(
    ledger: dict[str, Any], base: pd.DataFrame, unseen: pd.DataFrame, kind: str, question: Question
) -> tuple[Decision, dict[str, Any]]:
    charged = sum(entry["stage"] == "confirmed" for entry in ledger["questions"])
    error = (1 - question.level) / PLANNED
    comparison = _compare(base, unseen, kind, question, error)
    if charged >= PLANNED:
        sentence = f"All {PLANNED} confirmations of this ledger are spent: begin a new ledger on a new test set."
        return Decision(UNDECIDED, sentence, comparison, 1 - error), {"stage": "refused", "error": error}
    code = CODES[comparison.verdict]
    result = {ACCEPTED: "Accepted", REJECTED: "Rejected", UNDECIDED: "Undecided"}[code]
    sentence = (
        f"{result}: {comparison.verdict} on {len(unseen)} seeds not seen before. "
        f"Confirmation {charged + 1} of {PLANNED} is charged to the ledger."
    )
    return Decision(code, sentence, comparison, 1 - error), {"stage": "confirmed", "error": error}


def _compare(base: pd.DataFrame, candidate: pd.DataFrame, kind: str, question: Question, error: float) -> Comparison:
    part = estimate(candidate.to_numpy(float), base.to_numpy(float), kind)
    found = as_comparisons(stack([part]), question.rope, question.higher_is_better, 1 - error)[0]
    return found.within(largest_difference([base.to_numpy(float), candidate.to_numpy(float)], question))


def _digest(base: pd.DataFrame, candidate: pd.DataFrame, question: Question) -> str:
    """SHA-256 of the scores, whatever the order of their rows, and of what is asked of them where that is unusual."""
    asked = (question.higher_is_better, question.rope)
    hashed = hashlib.sha256(b"" if asked == (True, Question.rope) else repr(asked).encode())
    for table in (base, candidate):
        hashed.update(b"".join(sorted(row.tobytes() for row in table.to_numpy(float))) + b"|")
    return hashed.hexdigest()


def _resolved(path: Path) -> Path:
    """The file behind links, which is the one to replace. Raises InputError where it is no file."""
    try:
        found = path.resolve()
    except (OSError, RuntimeError):  # a link to itself
        found = Path()
    if not found.name or found.is_dir():
        raise InputError(f"--ledger {path} is no file. Name one, such as ledger.json.")
    return found


def _read(path: Path, question: Question) -> dict[str, Any]:
    if not path.exists():
        return {"format": 1, "level": question.level, "questions": []}
    try:
        ledger = json.loads(path.read_text(encoding="utf-8"))
        questions, level = ledger["questions"], float(ledger["level"])
        assert ledger["format"] == 1 and 0 < level < 1
        assert isinstance(questions, list) and all(map(_is_entry, questions))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError):
        raise InputError(f"The ledger {path} cannot be read. Restore it from a copy, or name a new file.") from None
    if abs(level - question.level) > 1e-9:
        raise InputError(f"The ledger {path} was begun at level {level:g}: leave out --level, or name a new file.")
    return ledger


def _is_entry(entry: Any) -> bool:
    """Whether a question has what `_answer` writes; an acceptance that no confirmation gave is none."""
    if not all(isinstance(entry.get(name), kind) for name, kind in ENTRY.items()):
        return False
    texts = all(isinstance(text, str) for text in [*entry["seeds"], *entry.get("rows", [])])
    codes = (REJECTED, UNDECIDED) if entry["stage"] != "confirmed" else tuple(CODES.values())
    return texts and entry["stage"] in STAGES and entry["exit"] in codes and 0 < entry["error"] < 1


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time reads and writes the ledger; the lock goes with the process."""
    try:
        file = open(path.with_name(f".{path.name}.lock"), "a+b")  # noqa: SIM115 - held for the length of the block
    except OSError as error:
        raise InputError(f"The ledger {path} cannot be written ({error.strerror}). Name another file.") from None
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # type: ignore[attr-defined]
        yield
