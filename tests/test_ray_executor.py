"""The Ray executor against a stand-in that loses workers at will; real clusters are in faults/test_ray.py."""

from collections import Counter
from types import SimpleNamespace

import pytest

from experiments.runtime import interrupts
from experiments.studies import executor, ray_executor


class Dead(Exception):
    """What Ray raises where a worker died."""


class Losing:
    """Takes Ray's place: job number n of those that are handed over loses its worker `deaths[n]` times."""

    exceptions = SimpleNamespace(
        WorkerCrashedError=Dead, NodeDiedError=Dead, OutOfMemoryError=Dead, LocalRayletDiedError=Dead
    )

    def __init__(self, deaths):
        self.left, self.handed = list(deaths), Counter()

    def remote(self, **_):
        return lambda work: SimpleNamespace(remote=self._hand)

    def _hand(self, act, plan, job, origin):
        self.handed[job] += 1
        return object()

    def put(self, what):
        return what

    def wait(self, going, **_):
        return going[:1], going[1:]

    def get(self, handed):
        if self.left and self.left.pop(0):
            raise Dead("the worker died")
        return "done", None, []

    def cancel(self, handed, force):
        pass


def carried_out(deaths, jobs, parallel):
    made = ray_executor.RayExecutor(Losing(deaths), ray_executor.Resources(1, 0), parallel, interrupts.Stop())
    return list(made.run_tasks(None, None, jobs))


def test_equal_jobs_are_lost_one_by_one():
    """The trials of one cell are equal jobs: eight that each lose one worker are no job that loses eight."""
    jobs = [(0, frozenset())] * 8
    found = carried_out([True] * 8, jobs, 8)
    assert found == [(job, "done") for job in jobs]


@pytest.mark.parametrize("deaths", [ray_executor.RETRIES, ray_executor.RETRIES + 1])
def test_a_task_is_rescheduled_up_to_the_limit_and_no_more(deaths):
    ((_, answer),) = carried_out([True] * deaths, [(0, frozenset())], 1)
    assert isinstance(answer, executor.WorkerLost) == (deaths > ray_executor.RETRIES)


def test_a_share_of_a_gpu_says_how_many_runs_fit_and_parallel_is_the_limit():
    whole = {"CPU": 16.0, "GPU": 1.0, "memory": 1e9}
    assert [ray_executor.Resources(1, share).fits(whole) for share in (0.25, 0.3, 0.5, 1.0)] == [4, 3, 2, 1]
    assert ray_executor.Resources(6, 0.25).fits(whole) == 2 and ray_executor.Resources(1, 0.25).fits({"CPU": 16.0}) == 0
    ray = Losing([])
    made = ray_executor.RayExecutor(ray, ray_executor.Resources(1, 0), 3, interrupts.Stop())
    most, going = 0, ray.wait

    def wait(handed, **_):
        nonlocal most
        most = max(most, len(handed))
        return going(handed)

    ray.wait = wait
    assert len(list(made.run_tasks(None, None, [(number,) for number in range(10)]))) == 10 and most == 3
