"""The one door to Ray: the runs of a study on several machines, or several of them on one GPU.

Ray schedules each run and reports when a worker or a machine died; such a run is rescheduled and resumes from its
last checkpoint. All else is as in one process: the same functions, the same number of threads (it is in the run's
settings and decides the last bits of its sums), the same leases, so that plain workers may share the study. Every
machine needs the project, the images and the output folder under the same paths.

Ray 把研究的各次训练分配到多台机器上，或让几次训练共用一块 GPU；
工作进程或机器中断时，只影响它正在做的那一次训练，该训练会被重新调度。
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.runtime import progress
from experiments.runtime.interrupts import Interrupted, Stop, handle_signals
from experiments.studies.executor import Task, TaskFunction, WorkerLost
from experiments.studies.from_flags import RayOptions
from experiments.studies.plan import Plan
from experiments.tracking import tracker
from registry import InputError

RETRIES = 3  # how often a run is rescheduled after its worker died
STOP_TIMEOUT = 60.0  # seconds after which a worker that was asked to stop is killed
POLL_SECONDS = 0.5  # between two checks for a stop signal
ROOT = Path(__file__).parent.parent.parent
# Prefixes of the environment variables that workers also need.
FORWARDED_VARIABLES = ("MLFLOW_", "OPTUNA_", "GOMP_", "NO_ALBUMENTATIONS_", "HF_", "TORCH_HOME")


@dataclass(frozen=True)
class Resources:
    """What one run takes on a machine."""

    cpus: int
    gpus: float

    def fits(self, resources: dict[str, float]) -> int:
        """How many runs fit on a machine with these resources at once."""
        takes = {"CPU": self.cpus, "GPU": self.gpus}
        return min(int(resources.get(name, 0) / amount + 1e-6) for name, amount in takes.items() if amount)


@dataclass(frozen=True)
class Invocation:
    """The command line and its working directory."""

    folder: str
    command: tuple[str, ...]


class RayExecutor:
    """An open connection to Ray: an `Executor`."""

    def __init__(self, ray: Any, need: Resources, parallel: int | None, stop: Stop) -> None:
        self._ray, self._need, self._parallel, self._stop = ray, need, parallel, stop
        # retried here and not by Ray, which would do so silently, and forever where memory runs out
        self._work = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0)(_run_in_worker)
        self._warned: set[str] = set()

    def capacity(self) -> int:
        """Twice what fits: the second half waits, and shows an autoscaler that there is more to do."""
        return self._parallel or max(1, 2 * sum(self._need.fits(node["Resources"]) for node in _alive_nodes(self._ray)))

    def run_tasks(self, function: TaskFunction, plan: Plan, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """See `Executor.run_tasks`. When the caller stops early, what is still running is stopped and waited for."""
        # by number: of equal tasks, as the trials of one cell are, each is lost separately
        shared_plan, waiting, losses = self._ray.put(plan), deque(enumerate(tasks)), Counter[int]()
        running: dict[Any, tuple[int, Task]] = {}
        invocation = Invocation(os.getcwd(), tuple(sys.argv))
        try:
            while waiting or running:
                while waiting and len(running) < self.capacity():
                    number, task = waiting.popleft()
                    running[self._work.remote(function, shared_plan, task, invocation)] = number, task
                ended, _ = self._ray.wait(list(running), timeout=POLL_SECONDS)
                self._stop.check()
                for reference in ended:
                    number, task = running.pop(reference)
                    result = self._result(reference)
                    if isinstance(result, WorkerLost) and losses[number] < RETRIES:
                        losses[number] += 1
                        progress.log(f"{result.reason} The run is rescheduled (retry {losses[number]} of {RETRIES}).")
                        waiting.appendleft((number, task))
                    else:
                        yield task, result
        finally:
            self._cancel(list(running))

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        lost = (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.LocalRayletDiedError,
        )
        try:
            result, raised, warnings = self._ray.get(reference)
        except lost as error:
            return WorkerLost(f"A worker was lost ({_first_sentence(error)}).")
        for sentence in warnings:
            if sentence not in self._warned:
                progress.log(sentence)
        self._warned.update(warnings)
        if raised is not None:
            raise raised
        return result

    def _cancel(self, running: list[Any]) -> None:
        if not running:
            return
        progress.log(f"Stopping {len(running)} runs at the next checkpoint ...")
        for reference in running:
            self._ray.cancel(reference, force=False)  # SIGINT for the worker: see `_run_in_worker`
        _, still_running = self._ray.wait(running, num_returns=len(running), timeout=STOP_TIMEOUT)
        for reference in still_running:
            self._ray.cancel(reference, force=True)


@contextlib.contextmanager
def open_cluster(pool: RayOptions, plan: Plan, stop: Stop) -> Iterator[RayExecutor]:
    """Connect to the cluster at the pool's address, or start one on this machine, for the length of a `with` block."""
    need = _resources_per_run(pool, plan)
    _refuse_unreachable(pool.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    given: dict[str, Any] = {"address": pool.address, "log_to_driver": False, "logging_level": "error"}
    if pool.address is None:  # a private one: only the plan goes through its object store
        given |= {"address": "local", "include_dashboard": False, "object_store_memory": 100_000_000}
    try:
        ray.init(**given, runtime_env={"env_vars": _environment(need)})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"Ray at {pool.address or 'this machine'} cannot be used: {_first_sentence(error)}.") from None
    try:
        _refuse_small(ray, need)
        _log_cluster(ray, plan)
        yield RayExecutor(ray, need, pool.parallel, stop)
    finally:
        ray.shutdown()


def _run_in_worker(
    function: TaskFunction, plan: Plan, task: Task, invocation: Invocation
) -> tuple[Any, InputError | None, list[str]]:
    """In a worker: the result, the InputError that was raised instead, and warnings. Ray cancels with SIGINT."""
    warnings: list[str] = []
    runtime, host = plan.machine, socket.gethostname()
    try:
        os.chdir(invocation.folder)
        sys.argv[:] = invocation.command  # recorded in the run's folder
        with (
            handle_signals() as stop,
            tracker.session(runtime.tracking_uri, runtime.output_dir, warnings.append) as session,
        ):
            return function(plan, task, stop, session), None, warnings
    except Interrupted:
        return WorkerLost(f"The worker on {host} was asked to stop."), None, warnings
    except FileNotFoundError as error:
        message = f"The machine {host} lacks {error.filename}: all machines need the same folders."
        return None, InputError(message), warnings
    except InputError as error:
        return None, InputError(str(error)), warnings


def _resources_per_run(pool: RayOptions, plan: Plan) -> Resources:
    """A run on the CPU takes as many CPUs as it has threads; a run on a GPU its share of the GPU and its threads."""
    configs = [cell.config for cell in plan.cells]
    if all(config.device != "cuda" for config in configs):
        if pool.gpus_per_run is not None:
            raise InputError("--gpus-per-run is for runs on a GPU, and these train on the CPU: leave it out.")
        return Resources(max(config.threads for config in configs) or 1, 0)
    return Resources(
        max(1, *(config.threads for config in configs)), 1.0 if pool.gpus_per_run is None else pool.gpus_per_run
    )


def _refuse_unreachable(address: str | None) -> None:
    """Raise InputError at once; Ray itself would retry for two minutes and then end the process."""
    host, _, port = (address or "").rpartition(":")
    if address in (None, "auto") or "://" in (address or ""):
        return
    try:
        if not port.isdigit():
            raise OSError("an address is HOST:PORT")
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise InputError(
            f"No Ray cluster answers at {address} ({error}). Start one with: ray start --head --port 6379"
        ) from None


def _refuse_small(ray: Any, need: Resources) -> None:
    """Raise InputError if a run fits on no machine: it would wait forever."""
    if not any(need.fits(node["Resources"]) for node in _alive_nodes(ray)):
        share = f" and {need.gpus:g} GPU" if need.gpus else ""
        raise InputError(
            f"No machine of the Ray cluster has {need.cpus} CPUs{share}, which one run takes. Fewer threads a run: put "
            "OMP_NUM_THREADS=2, say, before the command (it is part of a run's identity)."
        )


def _log_cluster(ray: Any, plan: Plan) -> None:
    hosts = {node["NodeManagerHostname"] for node in _alive_nodes(ray)}
    cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
    progress.log(f"Ray: {len(_alive_nodes(ray))} nodes on {len(hosts)} machines, {cpus} CPUs, {gpus} GPUs.")
    if len(hosts) > 1 and (plan.machine.tracking_uri or "sqlite:").startswith("sqlite:"):
        progress.log(
            "MLflow's store is a file, which several machines cannot write safely: "
            "give them a server with --tracking-uri (see docs/en/scale.md)."
        )


def _alive_nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _environment(need: Resources) -> dict[str, str]:
    """The environment of workers. GOMP_SPINCOUNT must be set before torch is imported; Ray would set one thread."""
    forwarded = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED_VARIABLES)}
    places = [str(ROOT), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**forwarded, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(need.cpus)}


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")[:200]
