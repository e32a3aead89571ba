"""Shared fixture of the inference tests: a trained run, one per test process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import run_folder, small


@pytest.fixture(scope="session")
def trained(made_cars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder outputs/runs/KEY of a run that has learned something, on the synthetic cars; read-only."""
    import run

    output = tmp_path_factory.mktemp("trained") / "outputs"
    assert run.main([str(word) for word in small(made_cars, output, epochs=6, learning_rate=0.01, augment="none")]) == 0
    return run_folder(output)
