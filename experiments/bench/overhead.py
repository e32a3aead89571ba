"""Overhead of a run (imports, set-up, tracking, pictures), in a fresh process and after another run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.bench.step import ROOT

# A run of one epoch on three small synthetic cars, once for each seed in one process; cars and cache exist already.
RUN_TWICE = """
import json, pathlib, sys, time
began = time.perf_counter()
import run
out = pathlib.Path(sys.argv[1])
words = ["--data", "carvana", "--data-dir", str(out / "cars"), "--output-dir", str(out / "outputs"), "--preset", "demo",
         "--size", "48x32", "--epochs", "1", "--model", "unet", "--model-kwargs", "width=4", "--loss", "bce_dice"]
for seed in sys.argv[2:]:
    code = run.main([*words, "--seed", seed])
    assert code == 0, code
    print("SECONDS", seed, time.perf_counter() - began, flush=True)
    began = time.perf_counter()
"""


def run_seconds() -> dict[str, float]:
    """Seconds of a run that are neither training nor scoring: of the first run in a process and of the second."""
    from experiments.data.synthetic.cars import write_cars

    with tempfile.TemporaryDirectory() as folder:
        write_cars(Path(folder) / "cars", cars=3, size=(96, 64))
        subprocess.run(_words(folder, "0"), cwd=ROOT, capture_output=True, check=True)  # store and cache are made once
        shown = subprocess.run(_words(folder, "1", "2"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
        walls = [float(line.split()[2]) for line in shown.splitlines() if line.startswith("SECONDS")]
        results = [json.loads(p.read_text()) for p in Path(folder).glob("outputs/runs/*/result.json")]
        work = {r["seed"]: r["seconds"]["training"] + r["seconds"]["scoring"] for r in results}
    return {"in a fresh process": walls[0] - work[1], "after another run": walls[1] - work[2]}


def import_seconds() -> dict[str, float]:
    """Seconds that a fresh process takes to start and to import what each command needs."""
    codes = {
        "--help": "import run; run.main(['--help'])",
        "a run's packages": "import experiments.training.runner",
        "MLflow": "import mlflow",
    }
    seconds = {}
    for name, code in codes.items():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
        seconds[name] = time.perf_counter() - began
    return seconds


def _words(*words: str) -> list[str]:
    return [sys.executable, "-c", RUN_TWICE, *words]
