"""Records of an untrained study: the files that runs would leave, with random scores. Fast, and of any size.

python -m tests.made_study OUTPUT [CELLS SEEDS CARS]   writes one to look at
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

LOSSES = {"bce": 0.0, "dice": 0.002, "focal": -0.004, "bce_dice": 0.0025}
MODELS = {"unet": 0.0, "attention_unet": 0.0005, "resnet_unet": 0.006}
VERSIONS = {"python": "3.11.7", "torch": "2.14.0", "processor": "A CPU of 2 cores"}
HEADER = "set,group,image,tp,fp,fn,tn,dice,iou,precision,recall,boundary_iou,hd95"
PIXELS = 96 * 64
TRIALS = ("cell", "trial", "rate", "seed", "state", "value", "key", "seconds")


def write_study(
    output: Path,
    name: str = "made",
    models=MODELS,
    losses=LOSSES,
    seeds=(0, 1, 2),
    cars: int = 12,
    views: int = 4,
    epochs: int = 10,
    sd: float = 0.0005,
    tuned: bool = True,
    **plan,
) -> dict:
    """Write a study of every model with every loss and return its plan. `models`, `losses`: {name: effect on Dice}."""
    cells = [_cell(model, loss, seeds, tuned) for model in models for loss in losses]
    content = {
        "name": name,
        "question": {"en": "Which model with which loss is better?", "zh": "哪个模型配哪个损失函数更好？"},
        "factors": {"model": list(models), "loss": list(losses)},
        "settings": {"preset": "carvana-cpu", "epochs": epochs},
        "design": {"seeds": list(seeds), "rope": 0.001, "confirmatory": ["model", "loss"], "exploratory": ["pairs"]},
        "tuning": dict(low=3e-4, high=3e-2, points=7, seeds=[100, 101], sampler="grid", budget=14, extended=0)
        if tuned
        else None,
        "variances": {"car": 0.0003, "seed": 0.0005, "residual": 0.001, "source": "guess"},
        "detectable": {"pair": 0.0021, "main": {"model": 0.0009, "loss": 0.0011}, "equivalent": 0.42},
        "protocol": 1,
        "data_fingerprint": "0123456789abcdef",
        "cells": cells,
    } | plan
    folder = output / "studies" / name
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(content))
    if tuned:
        _write_trials(folder / "trials.csv", cells)
    hard = np.random.default_rng(0).normal(0, 0.002, cars)  # what makes a car hard is the same for every run
    for cell in cells:
        for seed in seeds:
            effect = models[cell["levels"]["model"]] + losses[cell["levels"]["loss"]]
            write_run(output / "runs", cell, seed, 0.985 + effect, hard, views, epochs, sd)
    return content


def _cell(model: str, loss: str, seeds, tuned: bool) -> dict:
    cell = f"{model}-{loss}"
    runs = {str(seed): hashlib.sha256(f"{cell} {seed}".encode()).hexdigest()[:16] for seed in seeds}
    return {
        "cell": cell,
        "levels": {"model": model, "loss": loss},
        "settings": {"model": model, "loss": loss},
        "rate": 0.004,
        "rate_low": 0.002,
        "rate_high": 0.007,
        "tuned": tuned,
        "edge": False,
        "runs": runs,
    }


def write_run(
    runs: Path, cell: dict, seed: int, dice: float, hard: np.ndarray, views: int, epochs: int, sd: float, **config
) -> None:
    """Write the folder of a finished run whose mean Dice is about `dice`."""
    key = cell["runs"][str(seed)]
    rng = np.random.default_rng(int(key, 16))
    folder = runs / key
    folder.mkdir(parents=True)
    settings = made_config(seed, epochs) | cell["settings"] | {"learning_rate": cell["rate"]} | config
    (folder / "config.json").write_text(
        json.dumps(
            {
                "key": key,
                "config": settings,
                "versions": VERSIONS,
                "git_commit": "0123456789abcdef0123456789abcdef01234567",
            }
        )
    )
    curve = dice - 0.05 * np.exp(-np.linspace(0, 12, epochs)) + rng.normal(0, 1e-5, epochs)
    lines = [
        {
            "epoch": n + 1,
            "train/loss": 1 - d,
            "val/loss": 1.02 - d,
            "val/dice": d,
            "val/iou": d / (2 - d),
            "learning_rate": 1e-3,
        }
        for n, d in enumerate(curve)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    mean = dice + rng.normal(0, sd)
    old = seed % 2 == 1  # as early versions left a run
    for file in ("scores_last.csv", "scores.csv" if old else "scores_best.csv"):
        (folder / file).write_text(_scores(rng, mean + hard, views))
    result = {
        "key": key,
        "device": "A CPU of 2 cores",
        "ceiling": 0.9976,
        "best_epoch": epochs,
        "epochs": epochs,
        "parameters": 1_950_000,
        "gmacs": 0.61,
        "images_per_second": 52.0,
        "seconds": {"training": 61.5, "scoring": 9.0},
        "peak_memory_gb": 1.1,
    } | ({} if old else {"headline": "last"})
    (folder / "result.json").write_text(json.dumps(result))


def made_config(seed: int, epochs: int) -> dict:
    from experiments.config.schema import RunConfig

    return RunConfig(
        seed=seed, epochs=epochs, data_fingerprint="0123456789abcdef", threads=2, precision="fp32", device="cpu"
    ).to_dict()


def _scores(rng: np.random.Generator, dice: np.ndarray, views: int) -> str:
    """The scores of cars x views whose Dice is about `dice` (cars,)."""
    wanted = np.clip(np.repeat(dice, views) + rng.normal(0, 0.001, len(dice) * views), 0, 1)
    truth = np.full(wanted.shape, PIXELS // 4)
    wrong = np.round((1 - wanted) * truth * 2).astype(
        int
    )  # false and missed together: Dice = 1 - wrong / (2 truth) about
    fp, fn = wrong // 2, wrong - wrong // 2
    tp = truth - fn
    exact = 2 * tp / (2 * tp + fp + fn)
    rows = zip(
        tp,
        fp,
        fn,
        PIXELS - tp - fp - fn,
        exact,
        tp / (tp + fp + fn),
        tp / (tp + fp),
        tp / truth,
        exact - 0.05,
        200 * (1 - exact),
        strict=True,
    )
    lines = [HEADER]
    for number, row in enumerate(rows):
        car, view = f"car{number // views:04}", number % views + 1
        lines.append(
            ",".join(
                [
                    "test",
                    car,
                    f"{car}_{view:02}.jpg",
                    *(str(int(v)) for v in row[:4]),
                    *(str(round(float(v), 7)) for v in row[4:]),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def _write_trials(path: Path, cells: list[dict]) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for cell in cells:
        rates = np.repeat(np.geomspace(3e-4, 3e-2, 7), 2)
        values = 0.98 - 0.002 * np.log(rates / 0.004) ** 2 + rng.normal(0, 0.0005, len(rates))
        states = ["finished"] * (len(rates) - 1) + ["diverged"]
        for n, (rate, value, state) in enumerate(zip(rates, values, states, strict=True)):
            known = round(float(value), 7) if state == "finished" else ""
            rows.append((cell["cell"], n, f"{rate:.6g}", 100 + n % 2, state, known, f"t{n}", 20.0))
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([TRIALS, *rows])


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[2:]] or [12, 3, 12]
    models = {f"model {n}": 0.0005 * n for n in range(max(1, given[0] // 4))}
    write_study(
        Path(sys.argv[1]), models=MODELS if given[0] == 12 else models, seeds=range(given[1]), cars=given[2], views=16
    )
