"""The one door to Ray: the runs of a study on several machines, or several of them on one GPU.

Ray finds a place for each run, and tells when a worker or a machine died; such a run is handed out again, and goes on from its
last checkpoint. All else is as in one process: the same functions, the same number of threads (it is in the run's settings and
decides the last bits of its sums), the same leases, so that plain workers may share the study.
Every machine needs the project, the photographs and the output folder under the same paths.

Ray 把研究的各次运行分配到多台机器上，或让几次运行共用一块 GPU；工作进程或机器中断时，只影响它正在做的那一次运行，该运行会被重新分配。
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
from experiments.studies.plan import Plan
from experiments.studies.ray_options import RayOptions
from experiments.tracking import tracker
from registry import InputError

RETRIES = 3  # how often a run is handed out again whose worker died
STOP_TIMEOUT = 60.0  # seconds in which workers that were asked to stop should have done so
POLL_SECONDS = 0.5  # seconds between two looks at whether to stop
ROOT = Path(__file__).parent.parent.parent
FORWARDED_VARIABLES = (
    "MLFLOW_",
    "OPTUNA_",
    "GOMP_",
    "NO_ALBUMENTATIONS_",
    "HF_",
    "TORCH_HOME",
)  # settings that workers need, too


@dataclass(frozen=True)
class Resources:
    """What one run takes of a machine."""

    cpus: int
    gpus: float

    def fits(self, resources: dict[str, float]) -> int:
        """How many runs a machine with these resources takes at once."""
        takes = {"CPU": self.cpus, "GPU": self.gpus}
        return min(int(resources.get(name, 0) / amount + 1e-6) for name, amount in takes.items() if amount)


@dataclass(frozen=True)
class Invocation:
    """The command that was typed, and where."""

    folder: str
    command: tuple[str, ...]


class RayExecutor:
    """An open connection to Ray: an `Executor`."""

    def __init__(self, ray: Any, need: Resources, parallel: int | None, stop: Stop) -> None:
        self._ray, self._need, self._parallel, self._stop = ray, need, parallel, stop
        # tried again here and not by Ray, which would do so without a word, and for ever where memory runs out
        self._work = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0)(_run_in_worker)
        self._warned: set[str] = set()

    def capacity(self) -> int:
        """Twice what fits: the second half waits for its turn, and shows an autoscaler that there is more to do."""
        return self._parallel or max(1, 2 * sum(self._need.fits(one["Resources"]) for one in _alive_nodes(self._ray)))

    def run_tasks(self, act: TaskFunction, plan: Plan, jobs: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """See `Executor.each`. Whatever is still going on when the caller turns away is asked to stop, and waited for."""
        # by number: of equal jobs, as the trials of one cell are, each is lost by itself
        shared, left, lost = self._ray.put(plan), deque(enumerate(jobs)), Counter[int]()
        going: dict[Any, tuple[int, Task]] = {}
        try:
            while left or going:
                while left and len(going) < self.capacity():
                    number, job = left.popleft()
                    going[self._work.remote(act, shared, job, Invocation(os.getcwd(), tuple(sys.argv)))] = number, job
                ended, _ = self._ray.wait(list(going), timeout=POLL_SECONDS)
                self._stop.check()
                for handed in ended:
                    number, job = going.pop(handed)
                    answer = self._answer(handed)
                    if isinstance(answer, WorkerLost) and lost[number] < RETRIES:
                        lost[number] += 1
                        progress.log(
                            f"{answer.reason} Its run is handed out again ({lost[number]} of at most {RETRIES} times)."
                        )
                        left.appendleft((number, job))
                    else:
                        yield job, answer
        finally:
            self._cancel(list(going))

    def _answer(self, handed: Any) -> Any:
        errors = self._ray.exceptions
        try:
            answer, wrong, warnings = self._ray.get(handed)
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.OutOfMemoryError,
            errors.LocalRayletDiedError,
        ) as error:
            return WorkerLost(f"A worker was lost ({_first_sentence(error)}).")
        for sentence in warnings:
            if sentence not in self._warned:
                progress.log(sentence)
        self._warned.update(warnings)
        if wrong is not None:
            raise wrong
        return answer

    def _cancel(self, going: list[Any]) -> None:
        if not going:
            return
        progress.log(f"Asking {len(going)} runs to stop where they can be taken up again ...")
        for handed in going:
            self._ray.cancel(handed, force=False)  # SIGINT for the worker: see `_work`
        _, deaf = self._ray.wait(going, num_returns=len(going), timeout=STOP_TIMEOUT)
        for handed in deaf:
            self._ray.cancel(handed, force=True)


@contextlib.contextmanager
def open_cluster(pool: RayOptions, plan: Plan, stop: Stop) -> Iterator[RayExecutor]:
    """Ray for the length of a `with` block: the cluster at the pool's address, or one of this machine alone."""
    need = _resources_per_run(pool, plan)
    _refuse_unreachable(pool.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    given: dict[str, Any] = {"address": pool.address, "log_to_driver": False, "logging_level": "error"}
    if pool.address is None:  # one of its own: only the plan goes through its memory, and nobody looks at its pages
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
    act: TaskFunction, plan: Plan, job: Task, origin: Invocation
) -> tuple[Any, InputError | None, list[str]]:
    """In a worker: what came out, the InputError that did instead, and warnings. Ray cancels with SIGINT, which is heard here."""
    warnings: list[str] = []
    machine = plan.machine
    try:
        os.chdir(origin.folder)
        sys.argv[:] = origin.command  # what the record names
        with (
            handle_signals() as stop,
            tracker.session(machine.tracking_uri, machine.output_dir, warnings.append) as session,
        ):
            return act(plan, job, stop, session), None, warnings
    except Interrupted:
        return WorkerLost(f"The worker on {socket.gethostname()} was asked to stop."), None, warnings
    except FileNotFoundError as error:
        return (
            None,
            InputError(f"The machine {socket.gethostname()} lacks {error.filename}: all need the same folders."),
            warnings,
        )
    except InputError as error:
        return None, InputError(str(error)), warnings


def _resources_per_run(pool: RayOptions, plan: Plan) -> Resources:
    """A run on the CPU takes as many CPUs as it has threads; one on a GPU its share of it, and one CPU."""
    configs = [cell.config for cell in plan.cells]
    if all(config.device != "cuda" for config in configs):
        if pool.gpus_per_run is not None:
            raise InputError("--gpus-per-run is for runs on a GPU, and these train on the CPU: leave it out.")
        return Resources(max(config.threads for config in configs) or 1, 0)
    return Resources(
        max(1, *(config.threads for config in configs)), 1.0 if pool.gpus_per_run is None else pool.gpus_per_run
    )


def _refuse_unreachable(address: str | None) -> None:
    """Ray itself would try for two minutes, and end the process."""
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
    """A run that fits on no machine would wait for ever."""
    if not any(need.fits(one["Resources"]) for one in _alive_nodes(ray)):
        share = f" and {need.gpus:g} GPU" if need.gpus else ""
        raise InputError(
            f"No machine of the Ray cluster has {need.cpus} CPUs{share}, which one run takes. Fewer threads a run: put "
            "OMP_NUM_THREADS=2, say, before the command (it is part of a run's identity)."
        )


def _log_cluster(ray: Any, plan: Plan) -> None:
    hosts = {one["NodeManagerHostname"] for one in _alive_nodes(ray)}
    cpus, gpus = (int(ray.cluster_resources().get(name, 0)) for name in ("CPU", "GPU"))
    progress.log(f"Ray: {len(_alive_nodes(ray))} nodes on {len(hosts)} machines, {cpus} CPUs, {gpus} GPUs.")
    if len(hosts) > 1 and (plan.machine.tracking_uri or "sqlite:").startswith("sqlite:"):
        progress.log(
            "MLflow's store is a file, which several machines cannot write safely: "
            "give them a server with --tracking-uri (see docs/scale.md)."
        )


def _alive_nodes(ray: Any) -> list[dict[str, Any]]:
    return [one for one in ray.nodes() if one["Alive"]]


def _environment(need: Resources) -> dict[str, str]:
    """What a worker's process begins with. GOMP_SPINCOUNT counts before torch is imported; Ray would set one thread."""
    handed_on = {name: value for name, value in os.environ.items() if name.startswith(FORWARDED_VARIABLES)}
    places = [str(ROOT), os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**handed_on, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": str(need.cpus)}


def _first_sentence(error: BaseException) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")[:200]
