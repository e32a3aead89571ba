"""`runs` and `runs clean-cache`: what is there, how it stands, and what may go."""

import json
import os
import shutil

import pytest
from filelock import FileLock

from experiments.data.cache import clean_cache, disk_size
from experiments.runtime import leases
from experiments.training import run_index
from tests.conftest import run_folder, small


@pytest.fixture(scope="module")
def trained(made_cars, tmp_path_factory):
    """The output folder of one finished run."""
    import run

    output = tmp_path_factory.mktemp("trained")
    assert run.main(small(made_cars, output, epochs=1)) == 0
    return output


@pytest.fixture
def output(trained, tmp_path):
    """A copy of it, with a run in every state and things that are no runs."""
    output = shutil.copytree(trained, tmp_path / "outputs")
    done = run_folder(output)
    for name in ("interrupted", "failed", "running", "damaged", "damaged2"):
        shutil.copytree(done, done.with_name(name))
        if not name.startswith("damaged"):
            (done.with_name(name) / "result.json").unlink()
    (done.with_name("failed") / "failed.json").write_text(json.dumps({"reason": "Out of memory."}))
    (done.with_name("damaged") / "config.json").write_text('{"key": "cut o')
    (done.with_name("damaged2") / "result.json").write_text('{"test": 3}')
    done.with_name("foreign").mkdir()
    (done.with_name("foreign") / "notes.txt").write_text("mine")
    (output / "runs" / "a-file.txt").write_text("mine")
    return output


def states(output):
    return {run.key: run.state for run in run_index.list_runs(output / "runs")}


def test_every_state_is_distinguished(output):
    key = next(path.name for path in (output / "runs").iterdir() if len(path.name) == 16)
    with leases.hold(output / "runs" / "running"):
        assert states(output) == {
            key: "finished",
            "interrupted": "interrupted",
            "failed": "failed",
            "running": "running",
            "damaged": "damaged",
            "damaged2": "damaged",
            "foreign": "foreign",
        }
    assert states(output)["running"] == "interrupted"


def test_the_table_shows_what_a_run_is_and_weighs(command, output):
    code, shown, _ = command("runs", "--output-dir", output)
    rows = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    done = next(run for run in run_index.list_runs(output / "runs") if run.state == "finished")
    dice = json.loads((done.folder / "result.json").read_text())["test"]["last"]["dice"]
    size = sum(path.stat().st_size for path in done.folder.rglob("*") if path.is_file())
    assert code == 0 and all(word in rows[done.key] for word in ("unet", "bce_dice", "carvana", " 0 ", "finished"))
    assert f"{dice:.4f}" in rows[done.key] and f"{size / 1e6:.1f} MB" in rows[done.key]
    assert "failed: Out of memory." in rows["failed"] and "after epoch 1 of 1" in rows["interrupted"]
    assert "config.json cannot be read" in rows["damaged"] and "no config.json" in rows["foreign"]
    total = sum(disk_size(run.folder) for run in run_index.list_runs(output / "runs"))
    assert (
        all(
            words in shown
            for words in ("7 runs (", "2 interrupted", "2 damaged", "1 finished", "1 failed", "1 foreign")
        )
        and f"{total / 1e6:.1f} MB." in shown
    )
    assert f"Cache: {disk_size(output / 'cache') / 1e6:.1f} MB" in shown


def test_nothing_to_list_is_said_and_makes_nothing(command, tmp_path):
    code, shown, _ = command("runs", "--output-dir", tmp_path / "none")
    assert code == 0 and "No runs" in shown and not (tmp_path / "none").exists()
    code, shown, _ = command("runs", "clean-cache", "--output-dir", tmp_path / "none")
    assert code == 0 and "Freed 0.0 MB" in shown and not (tmp_path / "none").exists()


def contents(folder):
    return {path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_cleaning_frees_the_cache_and_changes_nothing_else(command, output):
    before, size = contents(output), disk_size(output / "cache")
    code, shown, _ = command("runs", "clean-cache", "--output-dir", output)
    assert code == 0 and size > 0 and f"Freed {size / 1e6:.1f} MB" in shown
    assert contents(output) == {path: data for path, data in before.items() if path.parts[0] != "cache"}


def test_the_cache_of_a_run_that_is_running_is_left(command, output):
    before = contents(output)
    with leases.hold(output / "runs" / "running"):
        code, shown, _ = command("runs", "clean-cache", "--output-dir", output)
    after = contents(output)
    assert code == 0 and "a run is using it" in shown and "Freed 0.0 MB" in shown
    assert {path: after[path] for path in before} == before


def test_a_run_on_another_machine_is_running_and_its_cache_is_left(command, output):
    lease = output / "runs" / "running.lease"
    lease.write_text(json.dumps({"host": "elsewhere", "machine": "another", "process": 1, "token": "x"}))
    assert states(output)["running"] == "running"
    code, shown, _ = command("runs", "clean-cache", "--output-dir", output)
    assert code == 0 and "a run is using it" in shown and "Freed 0.0 MB" in shown
    os.utime(lease, (0, 0))  # no heartbeat any more
    assert states(output)["running"] == "interrupted"


def test_caches_being_built_stay_and_torn_ones_go_and_what_is_no_cache_is_not_touched(tmp_path):
    for name in ("aa-8x8", "aa-8x8.building-dead", "bb-8x8.building-now", "my photographs", "notes-8x8x8"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "images.u8").write_bytes(b"12345")
    (tmp_path / "cc-8x8").mkdir()
    (tmp_path / "cc-8x8" / "of the user.txt").write_text("precious")
    with FileLock(tmp_path / "bb-8x8.lock"):
        assert clean_cache(tmp_path) == (10, ["bb-8x8"])
        assert {p.name for p in tmp_path.iterdir()} == {
            "bb-8x8.building-now",
            "bb-8x8.lock",
            "cc-8x8",
            "my photographs",
            "notes-8x8x8",
        }
    assert (tmp_path / "cc-8x8" / "of the user.txt").exists()
    assert clean_cache(tmp_path) == (5, []) and {p.name for p in tmp_path.iterdir()} == {
        "cc-8x8",
        "my photographs",
        "notes-8x8x8",
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["clean-cash"], "did you mean 'clean-cache'?"),
        (["--ouput-dir", "x"], "did you mean '--output-dir'?"),
        (["clean-cache", "x"], "x"),
    ],
)
def test_an_invalid_argument_of_runs_is_refused_in_one_sentence(command, words, sentence):
    code, shown, complaint = command("runs", *words)
    assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1 and not shown


def loads(folder):
    """What the commands load of a run: its best and its last weights."""
    from experiments.training import checkpoint

    return [checkpoint.load(folder / name)["model"] for name in ("best.ckpt", "last.ckpt")]


def same(one, other):
    return all(
        weights.keys() == others.keys() and all((weights[name] == others[name]).all() for name in weights)
        for weights, others in zip(one, other, strict=True)
    )


@pytest.fixture
def finished(output):
    """The finished run among them, with a previous.ckpt."""
    folder = next(run.folder for run in run_index.list_runs(output / "runs") if run.state == "finished")
    shutil.copy(folder / "last.ckpt", folder / "previous.ckpt")
    return folder


def test_pruning_without_a_terminal_and_without_yes_changes_nothing(command, output, finished):
    before = contents(output)
    code, shown, _ = command("runs", "prune", "--output-dir", output)
    assert code == 0 and "1 finished run: " in shown and "Nothing was changed: add --yes" in shown
    assert contents(output) == before


@pytest.mark.parametrize(("answer", "freed"), [("y", True), ("n", False), ("", False)])
def test_pruning_asks_on_a_terminal(command, output, finished, monkeypatch, answer, freed):
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or answer)
    code, shown, _ = command("runs", "prune", "--output-dir", output)
    assert code == 0 and len(asked) == 1 and "[y/N]" in asked[0] and ("Freed" in shown) == freed
    assert (finished / "previous.ckpt").exists() != freed


def test_pruning_keeps_the_weights_of_finished_runs_and_everything_of_all_others(command, output, finished):
    before, weights = contents(output), loads(finished)
    size = disk_size(finished)
    code, shown, _ = command("runs", "prune", "--yes", "--output-dir", output)
    after = contents(output)
    freed = size - disk_size(finished)
    changed = {path for path in before if after.get(path) != before[path]}
    own = finished.relative_to(output)
    assert code == 0 and changed == {own / "last.ckpt", own / "previous.ckpt"}
    assert same(loads(finished), weights) and not (finished / "previous.ckpt").exists()
    assert freed > disk_size(finished) / 4 and f"Freed {freed / 1e6:.1f} MB" in shown
    announced = float(shown.split("1 finished run: ")[1].split(" MB")[0])
    assert announced == pytest.approx(freed / 1e6, rel=0.1)
    assert "Nothing to free" in command("runs", "prune", "--yes", "--output-dir", output)[1]


@pytest.mark.slow
def test_a_pruned_run_serves_every_command(command, output, finished, made_cars, tmp_path):
    image = next((made_cars / "train").glob("*.jpg"))
    words = ["predict", image, "--run", finished.name, "--output-dir", output, "--output"]
    assert command(*words, tmp_path / "before")[0] == 0
    assert command("runs", "prune", "--yes", "--output-dir", output)[0] == 0
    assert command(*words, tmp_path / "after")[0] == 0
    assert contents(tmp_path / "before") == contents(tmp_path / "after")
    code, shown, complaint = command(*small(made_cars, output, epochs=1))
    assert code == 0 and "is finished" in shown + complaint
    assert command("export", "--run", finished.name, "--output", tmp_path / "x.onnx", "--output-dir", output)[0] == 0
    assert (
        command(
            "evaluate", "--run", finished.name, "--data", "carvana", "--data-dir", made_cars, "--output-dir", output
        )[0]
        == 0
    )


def test_a_pruned_run_whose_result_is_gone_is_trained_again(command, output, finished, made_cars):
    scores = (finished / "scores_last.csv").read_bytes()
    assert command("runs", "prune", "--yes", "--output-dir", output)[0] == 0
    (finished / "result.json").unlink()
    for other in (
        "interrupted",
        "failed",
        "running",
        "damaged",
        "damaged2",
    ):  # copies, of which the same command would be
        shutil.rmtree(finished.with_name(other))
    code, shown, complaint = command(*small(made_cars, output, epochs=1))
    assert (
        code == 0
        and "holds only weights" in shown + complaint
        and (finished / "scores_last.csv").read_bytes() == scores
    )


def test_a_run_that_another_process_holds_is_not_pruned(command, output, finished):
    from experiments.runtime.leases import hold

    with hold(finished):
        before = contents(finished)
        code, shown, _ = command("runs", "prune", "--yes", "--output-dir", output)
        assert code == 0 and contents(finished) == before and "Freed" not in shown


def test_a_link_among_the_caches_is_not_followed(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "images.u8").write_bytes(b"12345")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "aa-8x8").symlink_to(theirs)
    clean_cache(tmp_path / "cache")
    assert (theirs / "images.u8").read_bytes() == b"12345"
