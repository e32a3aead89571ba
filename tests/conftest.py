"""Shared fixtures: small synthetic cars, real ones if CARVANA_DIR is set, MLflow stores, and the command line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as run.py does, before anything imports torch

ROOT = Path(__file__).parent.parent
CARS = 8
FUZZ = int(os.environ.get("FUZZ", "1"))  # how many times the examples of the property-based tests: make fuzz


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of tests/people is slow, and all of tests/faults belongs to make test-faults."""
    for item in items:
        for folder, mark in (("people", pytest.mark.slow), ("faults", pytest.mark.fault)):
            if item.path.parent.name == folder:
                item.add_marker(mark)


def examples(count: int) -> settings:
    """So many examples of a property-based test; no deadline, since the first one may pay for an import."""
    return settings(max_examples=count * FUZZ, deadline=None)


def report_flags(folder: Path) -> list[str | Path]:
    """The flags with which `report` reads and writes below a folder of its own."""
    return ["--output-dir", folder / "outputs", "--results-dir", folder / "results", "--readme", folder / "README.md"]


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Build what several test files read, once for all test processes: `build_once(name, build)` returns its path.

    `build` gets the path to write. What stands there is read-only: copy it to change it.
    """
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder  # the same folder in every worker

    def build_in_turn(name: str, build: Callable[[Path], object]) -> Path:
        with FileLock(folder / f"{name}.lock"):
            if not (folder / f"{name}.built").exists():
                build(folder / name)
                (folder / f"{name}.built").touch()
        return folder / name

    return build_in_turn


@pytest.fixture(scope="session")
def made_cars(build_once: Callable[..., Path]) -> Path:
    """Eight synthetic cars of 96x64 pixels in Carvana's layout; read-only."""
    from experiments.data.synthetic.cars import write_cars

    return build_once("cars", lambda folder: write_cars(folder, cars=CARS, seed=0, size=(96, 64)))


@pytest.fixture(scope="session")
def finished_run(made_cars: Path, build_once: Callable[..., Path], copy_store: Callable[[Path], None]) -> Path:
    """The output folder of one finished run of `small`, as another process left it; read-only."""

    def train(output: Path) -> None:
        copy_store(output / "mlflow.db")
        subprocess.run([sys.executable, "run.py", *small(made_cars, output)], cwd=ROOT, check=True, capture_output=True)

    return build_once("finished-run", train)


@pytest.fixture(scope="session")
def finished_study(made_cars: Path, build_once: Callable[..., Path]) -> Path:
    """A study that ran without interruption: its outputs/, its tiny.toml and what it printed; read-only."""
    import run
    from tests.test_study import TOML, words

    def carry_out(folder: Path) -> None:
        folder.mkdir()
        (folder / "tiny.toml").write_text(TOML)
        with set_one_thread(), contextlib.redirect_stdout(io.StringIO()) as shown:
            assert run.main(words(folder / "tiny.toml", made_cars, folder / "outputs")) == 0
        (folder / "shown.txt").write_text(shown.getvalue())

    return build_once("finished-study", carry_out)


@pytest.fixture(scope="session")
def copy_store(build_once: Callable[..., Path]) -> Callable[[Path], None]:
    """Copy a new MLflow store to a path. All test processes share the original, whose migrations take seconds."""

    def migrate(template: Path) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel("ERROR")  # as the project does; it would report each migration
        MlflowClient(tracking_uri=f"sqlite:///{template}").search_experiments()

    def copy(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shutil.copy(build_once("mlflow-template.db", migrate), path)

    return copy


@pytest.fixture(scope="session", autouse=True)
def stores_from_template(copy_store: Callable[[Path], None]) -> Iterator[None]:
    """Every new MLflow store of this process is a copy; processes that tests start create their own."""
    from experiments.tracking import store, ui

    original = store.open_store

    def open_store(uri: str, output_dir: Path) -> tuple[Any, str]:
        if store.local_path(uri) is not None:
            copy_store(store.local_path(uri))
        return original(uri, output_dir)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "open_store", open_store)
        patch.setattr(ui, "open_store", open_store)
        yield


@pytest.fixture
def stocked(tmp_path: Path, copy_store: Callable[[Path], None]) -> None:
    """Put a store into `tmp_path` as an output folder, for processes that a test starts there."""
    copy_store(tmp_path / "mlflow.db")


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all runs whose tracking a test does not check."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture(scope="session")
def shared(store_uri: str) -> list[str]:
    """The flag that names that store."""
    return ["--tracking-uri", store_uri]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread, here and in child processes: small images need no more, and it is part of a run's key."""
    with set_one_thread():
        yield


@contextlib.contextmanager
def set_one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture
def cars(made_cars: Path, tmp_path: Path) -> Path:
    """A copy of the synthetic cars that a test may modify."""
    return Path(shutil.copytree(made_cars, tmp_path / "cars"))


@pytest.fixture(scope="session")
def carvana() -> Path:
    """The folder of real Carvana images; skips the test if CARVANA_DIR is not set."""
    place = os.environ.get("CARVANA_DIR")
    if not place:
        pytest.skip("CARVANA_DIR does not name a folder of real Carvana images")
    return Path(place)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process and return (exit code, stdout, stderr)."""
    import run

    def run_command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run.main([str(word) for word in words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run_command


def small(data: Path, output: Path, /, **other: object) -> list[str]:
    """Arguments of a run that takes a second: two epochs of a narrow U-Net at 48x32 on the synthetic cars."""
    settings = {
        "data": "carvana",
        "data_dir": data,
        "output_dir": output,
        "size": "48x32",
        "epochs": 2,
        "batch_size": 16,
        "model": "unet",
        "model_kwargs": "width=4",
        "loss": "bce_dice",
        "preset": "demo",
        "precision": "fp32",
        "workers": 0,
    } | other
    return [str(word) for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


def run_folder(output: Path) -> Path:
    """Return the folder of the only run under `output`."""
    (folder,) = [path for path in (output / "runs").iterdir() if path.is_dir()]
    return folder
