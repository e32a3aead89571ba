"""One run, from its settings to its record.

settings -> samples -> split -> cache -> loader -> for epoch in train(...): write, checkpoint, track
         -> best and last weights on the test cars, once -> scores -> result.json -> MLflow
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.config.schema import RunConfig, RuntimeConfig
from experiments.data import splits as splitting
from experiments.data.cache import Pixels, open_cache
from experiments.data.run_inputs import RunInputs
from experiments.data.samples import CHANGED_IN_USE, fingerprint
from experiments.runtime import progress
from experiments.runtime.errors import Diverged, RunFailed, disk_error_message
from experiments.runtime.interrupts import Interrupted, Stop
from experiments.runtime.leases import Lease, hold
from experiments.tracking import tracker as tracking
from experiments.training import checkpoint
from experiments.training.dry_run import dry_run
from experiments.training.epochs import TrainingJob, backfill_tracker, resume, train_epochs
from experiments.training.final_evaluation import score, test_metrics
from experiments.training.loop import State, start
from experiments.training.run_folder import RunFolder, refuse_changed
from registry import LOSSES, MODELS, InputError


@dataclass(frozen=True)
class RunType:
    """What a training is for: a run, whose result is scored on the test cars, or a tuning trial, which never sees them."""

    folder: Callable[[RuntimeConfig], Path]
    conclude: Callable[[RunInputs, Pixels, State, RunFolder, tracking.Tracker, Stop], dict[str, Any]]
    numbers: Callable[[dict[str, Any]], dict[str, float]]  # of the result, for MLflow
    pictures: bool
    weights: bool  # whether the checkpoints are kept when it is finished


def validated(
    prepared: RunInputs, pixels: Pixels, state: State, record: RunFolder, tracker: tracking.Tracker, stop: Stop
) -> dict[str, Any]:
    """The result of a trial: the validation Dice of its last epoch, which nothing has selected."""
    config = prepared.config
    speeds = [row["images_per_second"] for row in record.timings()]
    return {
        "key": config.key, "model": config.model, "loss": config.loss, "seed": config.seed, "epochs": state.epoch,
        "learning_rate": config.learning_rate, "value": record.epochs()[-1]["val/dice"],
        "images_per_second": round(statistics.median(speeds), 2), "seconds": {"training": round(state.seconds, 1)},
    }  # fmt: skip


RUN = RunType(lambda machine: machine.runs_dir, score, test_metrics, pictures=True, weights=True)

TRIAL = RunType(lambda machine: machine.trials_dir, validated, lambda result: {"value": result["value"]}, False, False)


def run(
    prepared: RunInputs,
    stop: Stop,
    command: list[str] | None = None,
    *,
    kind: RunType = RUN,
    session: tracking.Session | None = None,
    tags: Mapping[str, str] | None = None,
    parent: str = "",
    lease: Lease | None = None,
) -> dict[str, Any]:
    """Carry out one run, or go on with it, or find it finished; returns its result.

    A study hands over its `session`, and `tags` for MLflow; a trial is nested in its `parent` there. Who holds the run
    already hands over the `lease`.
    Raises InputError (nothing was done; Busy: another process has the run), RunFailed (the reason is in the record too)
    and Interrupted (resumable).
    """
    config, machine = prepared.config, prepared.machine
    if kind is TRIAL:
        prepared = prepared.without_test()
    record = RunFolder(kind.folder(machine) / config.key)
    finished = record.result()
    if finished is not None:
        record.verify_config(config)
        record.verify_checksums()
        checkpoint.remove_temporary_files(record.folder)
        progress.log(f"The run {config.key} is finished; this is its result again. Another --seed makes another run.")
        return finished
    if kind is RUN:
        refuse_changed(config, machine)
    if config.threads:  # the order of sums depends on it; a Ray worker, say, begins with another number
        torch.set_num_threads(config.threads)
    model = build_model(config, machine)  # before anything is written: a model may refuse its options
    dry_run(model, config, len(prepared.parts.train))
    with contextlib.ExitStack() as opened:
        lease = lease or opened.enter_context(hold(record.folder))
        checkpoint.remove_temporary_files(
            record.folder, lease.confirm
        )  # before anything is read: what lies ready now is not renamed any more
        if (finished := record.result()) is not None:  # by another process, a moment ago
            return finished
        if session is None:
            session = opened.enter_context(tracking.session(machine.tracking_uri, machine.output_dir, progress.log))
        tracker, held = tracking.Tracker(session, tags, parent), lease
        job = TrainingJob(
            prepared, RunFolder(record.folder, held.confirm), held, tracker, stop.also(lambda: held.lost), kind.pictures
        )
        try:
            return _carry_out(job, kind, model, command or sys.argv)
        except OSError as error:  # before there was a record to note it in
            if (reason := disk_error_message(error, machine.output_dir)) is None:
                raise
            raise RunFailed(reason) from error


def _carry_out(job: TrainingJob, kind: RunType, model: nn.Module, command: list[str]) -> dict[str, Any]:
    prepared, record, tracker, stop = job.prepared, job.record, job.tracker, job.stop
    config, machine = prepared.config, prepared.machine
    began = time.perf_counter()
    loss = LOSSES[config.loss].build(**config.loss_kwargs)
    _refuse_other_data(prepared)
    with progress.progress_counter("decoding photographs", stop.check) as show:
        pixels = open_cache(prepared.samples, config.size, machine.cache_dir, config.data_fingerprint, show)
    record.begin(config, machine, command)
    record.write("split.csv", splitting.manifest(prepared.parts))
    job.lease.confirm()  # or it would be opened again for a run that another has finished
    tracker.open(
        config, machine.data_dir, (record.folder / "config.json").stat().st_mtime
    )  # when it began, also if that was long ago
    status, numbers, tags = "FAILED", {}, {}
    try:
        state = start(model, config)
        resume(state, record, config)
        backfill_tracker(record, tracker)
        train_epochs(job, pixels, state, loss)
        result = kind.conclude(prepared, pixels, state, record, tracker, stop)
        _refuse_other_data(prepared)
        result["seconds"]["this_sitting"] = round(time.perf_counter() - began, 1)
        record.finish(result)
        if not kind.weights:
            record.drop_weights()
        status, numbers = "FINISHED", kind.numbers(result)
    except Interrupted:
        status = "KILLED"
        job.lease.confirm()  # it is another process now that goes on with it
        raise
    except (RunFailed, checkpoint.Damaged, torch.OutOfMemoryError, RuntimeError, MemoryError, OSError) as error:
        reason = explain_failure(error, config)
        diverged = isinstance(error, Diverged)
        tags = {"diverged": str(diverged).lower()}
        job.lease.confirm()
        record.fail(reason or f"{type(error).__name__}: {error}", diverged)
        if reason is None or isinstance(error, RunFailed):
            raise
        raise RunFailed(reason) from error
    finally:
        if job.lease.is_mine():
            tracker.close(status, numbers, record.files(), tags)
        else:  # whoever took the run over has it in MLflow, too
            tracker.leave()
    return result


def _refuse_other_data(prepared: RunInputs) -> None:
    """Raise RunFailed where the files are no longer those of the run's fingerprint, which may be days old in a study."""
    if fingerprint(prepared.samples) != prepared.config.data_fingerprint:
        raise RunFailed(CHANGED_IN_USE.format(prepared.samples[0].image.parent))


def try_model(config: RunConfig, machine: RuntimeConfig) -> None:
    """Raise InputError or OptionError where the model refuses its options, the size or the batch. Nothing is kept."""
    dry_run(build_model(config, machine), config, config.batch_size)


def build_model(config: RunConfig, machine: RuntimeConfig) -> nn.Module:
    """The model of `config`; its initial weights depend on the seed alone."""
    torch.manual_seed(config.seed)
    options = dict(config.model_kwargs)
    if config.weights:
        options["pretrained"] = str(machine.weights_file)
    try:
        return MODELS[config.model].build(**options)
    except OSError as error:  # weights that could not be fetched or read; the text says what to type
        raise InputError(str(error)) from None


NO_MEMORY = (  # the words of PyTorch, the system, C++, CUDA and CUDA's libraries
    "can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc", "out of memory", "STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)  # fmt: skip


def explain_failure(error: BaseException, config: RunConfig) -> str | None:
    """What happened to a run, in a sentence with advice; None for what nobody foresaw, which deserves its traceback."""
    text = str(error)
    if isinstance(error, RunFailed):
        return text
    if isinstance(error, checkpoint.Damaged):
        return f"{error}. The same command trains the run again."
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in text for words in NO_MEMORY):
        return (
            f"Out of memory. Try a smaller --batch-size than {config.batch_size}, a smaller --size, or fewer --workers."
        )
    if isinstance(error, OSError) and (sentence := disk_error_message(error)):
        return sentence
    if "DataLoader worker" in text:
        return f"A worker that loads photographs died ({' '.join(text.split())}). Try --workers 0, or fewer, and repeat the command: it resumes."
    return None
