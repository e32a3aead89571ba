"""A soak test: a study whose two processes are killed again and again must end like one that was not disturbed.

python -m tests.faults.soak --minutes 60 --seed 0 [--shortest 20 --longest 60] [--epochs 150] [--seeds 4]

The undisturbed study is carried out once. Then, until the time is over, the same study begins anew with two processes
of which one is killed (`kill -9`) after a random time, and started again, until it is complete. Every round must end
with the same keys, and for each run with the same bytes of metrics.jsonl, scores_best.csv and scores_last.csv, and the
same weights; no run may be said to have ended twice, and MLflow must have each once. Exit code 1 names what differs.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.data.synthetic.cars import write_cars
from experiments.training.checkpoint import load
from tests.conftest import ROOT
from tests.test_tracking import store

PLAN = """
[question]
en = "Which loss?"
zh = "哪个损失函数？"
[settings]
preset = "demo"
data = "carvana"
size = "96x64"
epochs = {epochs}
batch_size = 16
precision = "fp32"
model_kwargs = {{ width = 4 }}
[factors]
loss = ["bce", "dice"]
[design]
seeds = {seeds}
[tuning]
low = 1e-3
high = 3e-2
points = 4
seeds = [100]
"""
ENDED = re.compile(r"\] \S+, seed \d+: test Dice")
Digests = dict[tuple[str, str], str]


def words(folder: Path, output: Path) -> list[str]:
    """The command of the study, which is the same in every process of every round."""
    given = ["--data-dir", folder / "cars", "--output-dir", output]
    return [sys.executable, "run.py", "study", str(folder / "soak.toml"), *map(str, given)]


def digests(output: Path) -> Digests:
    """The SHA-256 of all that must not differ between two ways to carry out one study, by key and file."""
    found = {}
    for result in sorted(output.glob("[rt]*/*/result.json")):  # runs/ and trials/
        key, folder = f"{result.parent.parent.name}/{result.parent.name}", result.parent
        for path in sorted([*folder.glob("metrics.jsonl"), *folder.glob("scores*.csv")]):
            found[key, path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("[lb]*.ckpt")):  # last and best; previous.ckpt depends on where it was taken up
            weights = b"".join(t.numpy().tobytes() for t in load(path)["model"].values())
            found[key, path.name] = hashlib.sha256(weights).hexdigest()
    plan = json.loads((output / "studies" / "soak" / "plan.json").read_text())
    return found | {("plan", "cells"): json.dumps(plan["cells"], sort_keys=True)}


class Worker:
    """One process of the study: killed when its time is over, started again until it ends by itself with code 0."""

    def __init__(self, command: list[str], log: Path, lives: random.Random, span: tuple[float, float]) -> None:
        self.command, self.log, self.lives, self.span = command, log, lives, span
        self.kills, self.done = 0, False
        self._start()

    def _start(self) -> None:
        with open(self.log, "ab") as file:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        self.until = time.monotonic() + self.lives.uniform(*self.span)

    def look(self) -> None:
        """Kill it or start it again if it is time to; RuntimeError if it ended badly by itself."""
        code = self.process.poll()
        if code is None and time.monotonic() >= self.until:
            self.process.kill()
            self.process.wait()
            self.kills += 1
            self._start()
        elif code == 0:
            self.done = True
        elif code is not None:
            raise RuntimeError(f"A process of the study ended with code {code}; see {self.log}")


def disturbed(folder: Path, output: Path, lives: random.Random, span: tuple[float, float]) -> int:
    """Carry the study out with two processes that are killed at random; how often they were."""
    output.mkdir()
    workers = [Worker(words(folder, output), output / f"worker{n}.log", lives, span) for n in range(2)]
    try:
        while not all(worker.done for worker in workers):
            time.sleep(0.1)
            for worker in workers:
                if not worker.done:
                    worker.look()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
    return sum(worker.kills for worker in workers)


def complaints(output: Path, wanted: Digests) -> list[str]:
    """What is not as in the undisturbed study, in words."""
    found = digests(output)
    wrong = [
        f"{key} {name} differs"
        for key, name in sorted(wanted.keys() | found.keys())
        if found.get((key, name)) != wanted.get((key, name))
    ]
    said = collections.Counter(
        match.group() for log in output.glob("worker*.log") for match in ENDED.finditer(log.read_text())
    )
    wrong += [f"said to have ended {times} times: {text}" for text, times in said.items() if times > 1]
    subprocess.run(
        [sys.executable, "run.py", "sync", "--output-dir", str(output)], cwd=ROOT, check=True, capture_output=True
    )
    runs = collections.Counter(
        run.data.tags.get("key") for run in store(output)[1] if "mlflow.parentRunId" not in run.data.tags
    )
    keys = {key.removeprefix("runs/") for key, _ in wanted if key.startswith("runs/")}
    wrong += [f"MLflow has {key} {runs[key]} times" for key in keys if runs[key] != 1]
    return wrong + [
        f"MLflow: {run.info.run_id} is {run.info.status}"
        for run in store(output)[1]
        if run.data.tags.get("key") in keys and run.info.status != "FINISHED"
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"minutes": 60.0, "shortest": 20.0, "longest": 60.0}.items():
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, default in {"seed": 0, "epochs": 150, "seeds": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--folder", type=Path, help="a new folder for it all (default: a temporary one, which is kept)")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the number of threads is part of a key
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(exist_ok=True)
    write_cars(folder / "cars", cars=8, seed=0, size=(96, 64))
    (folder / "soak.toml").write_text(
        PLAN.format(epochs=given.epochs, seeds=list(range(given.seeds))), encoding="utf-8"
    )
    began = time.monotonic()
    subprocess.run(words(folder, folder / "undisturbed"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    wanted = digests(folder / "undisturbed")
    print(
        f"Undisturbed: {len(wanted) - 1} files compared, {time.monotonic() - began:.0f} s. All of it is in {folder}",
        flush=True,
    )
    return _rounds(given, folder, wanted)


def _rounds(given: argparse.Namespace, folder: Path, wanted: Digests) -> int:
    began, lives, number, kills = time.monotonic(), random.Random(given.seed), 0, 0
    while number == 0 or time.monotonic() - began < 60 * given.minutes:
        number += 1
        output, since = folder / f"round{number}", time.monotonic()
        killed = disturbed(folder, output, lives, (given.shortest, given.longest))
        wrong, kills = complaints(output, wanted), kills + killed
        print(
            f"Round {number}: {killed} kills in {time.monotonic() - since:.0f} s, {len(wrong)} differences", flush=True
        )
        if wrong:
            print("\n".join(wrong))
            return 1
    print(
        f"{kills} kills in {number} rounds and {(time.monotonic() - began) / 60:.1f} minutes; "
        "every record as undisturbed."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
