"""One run, from its configuration to its record.

configuration -> samples -> split -> cache -> for epoch in train(...): record, checkpoint, upload
              -> last and best weights on the test set, once -> scores -> result.json -> MLflow
"""

from __future__ import annotations

import contextlib
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
from experiments.data.run_inputs import RunInputs, warn_before_training
from experiments.data.samples import CHANGED_IN_USE, fingerprint, image_digests
from experiments.runtime import progress
from experiments.runtime.errors import Diverged, RunFailed, disk_error_message
from experiments.runtime.interrupts import Interrupted, Stop
from experiments.runtime.leases import Lease, hold
from experiments.runtime.out_of_memory import is_out_of_memory
from experiments.tracking.tracker import Session
from experiments.tracking.tracker import session as connect
from experiments.tracking.upload import RunUpload
from experiments.training import checkpoint
from experiments.training.dry_run import dry_run
from experiments.training.epochs import TrainingJob, resume, train_epochs
from experiments.training.final_evaluation import evaluate_on_test, test_metrics, validation_result
from experiments.training.initial_weights import load_initial_weights
from experiments.training.loop import State, on_device, start
from experiments.training.run_folder import RunFolder, refuse_changed
from registry import LOSSES, MODELS, InputError


@dataclass(frozen=True)
class RunType:
    """What a training is for: a run, scored on the test set, or a tuning trial, which never sees the test set."""

    folder: Callable[[RuntimeConfig], Path]
    finalize: Callable[[RunInputs, Pixels, State, RunFolder, Stop], dict[str, Any]]  # returns the result
    metrics: Callable[[dict[str, Any]], dict[str, float]]  # of the result, for MLflow
    pictures: bool
    keeps_weights: bool  # whether the checkpoints stay after the end


RUN = RunType(lambda machine: machine.runs_dir, evaluate_on_test, test_metrics, pictures=True, keeps_weights=True)

TRIAL = RunType(
    lambda machine: machine.trials_dir, validation_result, lambda result: {"value": result["value"]}, False, False
)


def run(
    inputs: RunInputs,
    stop: Stop,
    *,
    run_type: RunType = RUN,
    model: nn.Module | None = None,
    session: Session | None = None,
    tags: Mapping[str, str] | None = None,
    parent: str = "",
    lease: Lease | None = None,
    warn: Callable[[str], None] = progress.log,
) -> dict[str, Any]:
    """Run or resume one run, or find it finished; return its result.

    Args:
        model: what `try_model` returned for this configuration.
        session: the connection to MLflow, where runs of a study share it.
        tags, parent: for MLflow: tags, and the key of the run that a trial is nested in.
        lease: of a caller that holds the run already.
        warn: called once, with a sentence, where MLflow is away.

    Raises:
        InputError: nothing was done (Busy: another process has the run).
        RunFailed, Interrupted: the reason is on record; the run is resumable.
    """
    config, machine = inputs.config, inputs.machine
    inputs = inputs.without_test() if run_type is TRIAL else inputs
    run_folder = RunFolder(run_type.folder(machine) / config.key)
    if (finished := run_folder.result()) is not None:
        _check_finished(run_folder, config)
        return finished
    if run_type is RUN:
        refuse_changed(config, machine)
    model = _ready(model, inputs)
    with contextlib.ExitStack() as opened:
        held = lease or opened.enter_context(hold(run_folder.folder))
        checkpoint.remove_temporary_files(run_folder.folder, held.confirm)  # before anything is read: see there
        if (finished := run_folder.result()) is not None:  # by another process, a moment ago
            return finished
        if session is None:
            session = opened.enter_context(connect(machine.tracking_uri, machine.output_dir, warn))
        own, stopped = RunFolder(run_folder.folder, held.confirm), stop.also(lambda: held.lost)
        upload = RunUpload(session, is_mine=held.is_mine)
        job = TrainingJob(inputs, own, held, stopped, run_type.pictures, upload, tags or {}, parent)
        return _carry_out(job, run_type, model)


def _ready(model: nn.Module | None, inputs: RunInputs) -> nn.Module:
    """Set the number of threads; build and dry-run the model unless that was done with a full batch."""
    config = inputs.config
    if config.threads:  # the order of sums depends on it; a Ray worker, say, begins with another number
        torch.set_num_threads(config.threads)
    if model is None or len(inputs.parts.train) < config.batch_size:
        model = model or build_model(config, inputs.machine)  # before anything is written: it may refuse its options
        dry_run(model, config, len(inputs.parts.train))
    return model


def _carry_out(job: TrainingJob, run_type: RunType, model: nn.Module) -> dict[str, Any]:
    """Train and score; a full or failing disk raises RunFailed with advice."""
    try:
        return _train_and_finalize(job, run_type, model)
    except Interrupted:
        job.lease.confirm()  # another process may have taken it over, which nobody asked this one to stop for
        raise
    except OSError as error:  # before there was a folder to record it in
        if (reason := disk_error_message(error, job.inputs.machine.output_dir)) is None:
            raise
        raise RunFailed(reason) from error


def _check_finished(run_folder: RunFolder, config: RunConfig) -> None:
    run_folder.verify_config(config)
    run_folder.verify_checksums()
    checkpoint.remove_temporary_files(run_folder.folder)
    progress.log(f"The run {config.key} is finished; this is its result again. Another --seed makes another run.")


def _train_and_finalize(job: TrainingJob, run_type: RunType, model: nn.Module) -> dict[str, Any]:
    inputs, run_folder, stop = job.inputs, job.run_folder, job.stop
    config, machine = inputs.config, inputs.machine
    began = time.perf_counter()
    loss = LOSSES[config.loss].build(**config.loss_kwargs)
    _refuse_other_data(inputs)
    with progress.progress_counter("decoding images", stop.check) as show:
        pixels = open_cache(inputs.samples, config.size, machine.cache_dir, config.data_fingerprint, show)
    warn_before_training(inputs, pixels, tuning=run_type is TRIAL)
    run_folder.begin(config, machine, sys.argv)
    digests = dict(zip(inputs.samples, image_digests(inputs.samples), strict=True))
    run_folder.write("split.csv", splitting.manifest(inputs.parts, digests))
    job.lease.confirm()  # or MLflow would show it as running again, when another process has finished it
    status, metrics, tags = "FAILED", {}, {}
    try:
        state = start(model, config)
        loss = on_device(loss, state.device)
        resume(state, run_folder, config)
        job.track()  # also what a kill kept from being sent
        train_epochs(job, pixels, state, loss)
        result = run_type.finalize(inputs, pixels, state, run_folder, stop)
        _refuse_other_data(inputs)
        result["seconds"]["this_sitting"] = round(time.perf_counter() - began, 1)
        run_folder.finish(result)
        if not run_type.keeps_weights:
            run_folder.drop_weights()
        status, metrics = "FINISHED", run_type.metrics(result)
    except Interrupted:
        status = "KILLED"
        raise
    except (RunFailed, checkpoint.Damaged, torch.OutOfMemoryError, RuntimeError, MemoryError, OSError) as error:
        tags = {"diverged": str(isinstance(error, Diverged)).lower()}
        _record_failure(error, job)
        raise
    finally:
        if job.lease.is_mine():
            job.track(status, metrics, tags)
        else:  # the process that took the run over also uploads it
            job.upload.leave()
    return result


def _record_failure(error: Exception, job: TrainingJob) -> None:
    """Note why the run failed; raises RunFailed with advice where there is any."""
    reason = explain_failure(error, job.inputs.config)
    job.lease.confirm()
    job.run_folder.fail(reason or f"{type(error).__name__}: {error}", isinstance(error, Diverged))
    if reason is not None and not isinstance(error, RunFailed):
        raise RunFailed(reason) from error


def _refuse_other_data(inputs: RunInputs) -> None:
    """Raise RunFailed where the files no longer match the run's fingerprint, which may be days old in a study."""
    try:
        found = fingerprint(inputs.samples)
    except InputError as error:  # a file is gone
        raise RunFailed(str(error)) from None
    if found != inputs.config.data_fingerprint:
        raise RunFailed(CHANGED_IN_USE.format(inputs.samples[0].image.parent))


def try_model(config: RunConfig, machine: RuntimeConfig) -> nn.Module:
    """Build the model. Raises InputError or OptionError where it refuses its options, the size or the batch."""
    model = build_model(config, machine)
    dry_run(model, config, config.batch_size)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise InputError(f"--model {config.model} has no parameters to train: assign its layers to self.")
    return model


def build_model(config: RunConfig, machine: RuntimeConfig) -> nn.Module:
    """Build the model of `config`; its initial weights depend on the seed alone."""
    torch.manual_seed(config.seed)
    options = dict(config.model_kwargs)
    if config.weights:
        options["pretrained"] = str(machine.weights_file)
    try:
        model = MODELS[config.model].build(**options)
        if config.init is not None:
            progress.log(load_initial_weights(model, config, machine))
        return model
    except OSError as error:  # weights that could not be fetched or read; the text says what to type
        raise InputError(str(error)) from None


def explain_failure(error: BaseException, config: RunConfig) -> str | None:
    """Return what happened in a sentence with advice; None for an unexpected error, which deserves its traceback."""
    text = str(error)
    if isinstance(error, RunFailed):
        return text
    if isinstance(error, checkpoint.Damaged):
        return f"{error}. The same command trains the run again."
    if is_out_of_memory(error):
        return (
            f"Out of memory. Try a smaller --batch-size than {config.batch_size}, a smaller --size, or fewer --workers."
        )
    if isinstance(error, OSError) and (sentence := disk_error_message(error)):
        return sentence
    if "DataLoader worker" in text:
        cause = " ".join(text.split())
        return f"A data-loading worker died ({cause}). Try --workers 0, or fewer, and repeat the command: it resumes."
    return None
