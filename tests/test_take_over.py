"""A process suspended after its lease check, whose run has a new owner when it continues, writes nothing into it."""

import contextlib

import pytest

from experiments.evaluation import evaluator
from experiments.runtime.errors import Busy
from experiments.training import checkpoint
from experiments.training.run_folder import RunFolder
from registry import InputError
from tests.conftest import run_folder, small

ROW = dict.fromkeys(evaluator.COLUMNS, 0.5)


def epoch(record, number, mark):
    """What an epoch writes; `mark` tells who wrote it."""
    record.add("metrics.jsonl", {"epoch": number, "by": mark})
    record.add("timing.jsonl", {"epoch": number, "by": mark})
    record.save_best({"epoch": number, "by": mark})
    record.save_last({"epoch": number, "by": mark})


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Run:
    """A run with one epoch on record, which a new owner carries out completely at the moment of `call`."""

    def __init__(self, folder, call):
        self.folder, self.call, self.calls, self.taken = folder, call, 0, None
        self.late = RunFolder(folder, self.confirm)
        folder.mkdir(exist_ok=True)
        epoch(RunFolder(folder), 1, "late")

    def confirm(self):
        """Yes, up to `call`; then the process stands still, another one takes the run over, and this one goes on."""
        if self.taken:
            raise Busy("taken over")
        self.calls += 1
        if self.calls == self.call:
            checkpoint.remove_temporary_files(self.folder)
            saved, _ = checkpoint.newest(self.folder)
            owner = RunFolder(self.folder)
            owner.truncate_after(saved["epoch"])
            for number in range(saved["epoch"] + 1, 4):
                epoch(owner, number, "owner")
            evaluator.write_scores(self.folder / "scores_last.csv", [ROW | {"image": "owner"}])
            owner.finish({"epochs": 3})
            self.taken = content(self.folder)


def refused(*_):
    raise PermissionError


@pytest.mark.fault(16)
@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("call", range(1, 6))
def test_nothing_of_a_late_epoch_comes_into_the_new_owners_run(tmp_path, call, links, monkeypatch):
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", refused)
    run = Run(tmp_path / "run", call)
    with contextlib.suppress(Busy):
        epoch(run.late, 2, "late")
    with pytest.raises(Busy):
        run.confirm()
    assert run.taken and content(run.folder) == run.taken
    assert RunFolder(run.folder).result()["epochs"] == 3


@pytest.mark.fault(16)
@pytest.mark.parametrize(
    "write",
    [
        lambda record: record.finish({"epochs": 1, "by": "late"}),
        lambda record: record.fail("late"),
        lambda record: record.truncate_after(1),
        lambda record: evaluator.write_scores(record.folder / "scores_last.csv", [ROW], record.confirm),
    ],
    ids=["the result", "a failure", "the lines of before", "the scores"],
)
def test_nothing_else_of_a_late_process_does(tmp_path, write):
    run = Run(tmp_path / "run", 1)
    with pytest.raises(Busy):
        write(run.late)
    assert content(run.folder) == run.taken


@pytest.mark.fault(16)
@pytest.mark.parametrize("late", [True, False], ids=["just before it is taken over", "long after"])
def test_a_late_process_deletes_nothing_of_the_new_owner(tmp_path, late):
    (tmp_path / "last.ckpt.0.tmp").touch()

    def confirm():
        (tmp_path / "last.ckpt.1.tmp").touch()  # the new owner's
        if not late:
            raise Busy("taken over")

    with contextlib.suppress(Busy):
        checkpoint.remove_temporary_files(tmp_path, confirm)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (["last.ckpt.1.tmp"] if late else ["last.ckpt.0.tmp", "last.ckpt.1.tmp"])


@pytest.mark.fault(16)
def test_partial_files_are_removed_before_the_new_owner_looks_for_a_result(made_cars, tmp_path, command, monkeypatch):
    assert command(*small(made_cars, tmp_path / "first", epochs=1))[0] == 0
    folder = tmp_path / "second" / "runs" / run_folder(tmp_path / "first").name
    folder.mkdir(parents=True)
    (folder / "result.json.0.tmp").touch()
    kept, seen = RunFolder.result, []

    def result(record):
        seen.append(list(record.folder.glob("*.tmp")))
        return kept(record)

    monkeypatch.setattr(RunFolder, "result", result)
    assert command(*small(made_cars, tmp_path / "second", epochs=1))[0] == 0
    assert seen[0] and not any(seen[1:])


def test_where_links_cannot_be_made_the_last_checkpoint_is_kept_as_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.os, "link", refused)
    for number in (1, 2, 3):
        RunFolder(tmp_path).save_last({"epoch": number})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert [checkpoint.load(tmp_path / f"{name}.ckpt")["epoch"] for name in ("previous", "last")] == [2, 3]


def test_a_rotation_that_was_cut_off_before_the_next_checkpoint_leaves_no_third_name(tmp_path):
    checkpoint.save(tmp_path / "last.ckpt", {"epoch": 1})
    for _ in range(2):
        checkpoint.rotate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize("epochs", [[1, 1], [1], [2, 3]], ids=str)
def test_a_run_is_not_finished_whose_epochs_are_not_there_once_each(tmp_path, epochs):
    record = RunFolder(tmp_path)
    for number in epochs:
        for name in ("metrics.jsonl", "timing.jsonl"):
            record.add(name, {"epoch": number})
    with pytest.raises(InputError, match="once each"):
        record.finish({"epochs": 2})
    assert record.result() is None


def test_a_run_that_was_taken_over_while_it_decoded_is_busy_not_interrupted(monkeypatch):
    from types import SimpleNamespace

    from experiments.runtime.interrupts import Interrupted
    from experiments.training import runner

    def taken():
        raise Busy("Another process holds this run.")

    def decoding(*_):
        raise Interrupted

    monkeypatch.setattr(runner, "_train_and_finalize", decoding)
    with pytest.raises(Busy):
        runner._carry_out(SimpleNamespace(lease=SimpleNamespace(confirm=taken)), None, None)
