"""A full or read-only disk and damaged files: the path is named, nothing is lost, nothing wrong is used."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from filelock import FileLock

from analysis.records import run_files
from experiments.data import cache, carvana
from experiments.runtime.interrupts import Interrupted
from registry import InputError
from tests.conftest import run_folder, small
from tests.faults.conftest import injected, typed
from tests.test_run import digests

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(made_cars, tmp_path_factory, store_uri, one_thread):
    """The output folder of a run that nothing happened to."""
    output = tmp_path_factory.mktemp("finished")
    code, _, complaint = typed(small(made_cars, output, tracking_uri=store_uri))
    assert code == 0, complaint
    return output


# Fills the disk up, to the last byte, before a function is called for the n-th time.
FULL = """
{module}
kept, calls = place.{function}, 0
def spy(*given, **named):
    global calls
    calls += 1
    if calls == {call}:
        with open({filler!r}, "wb", buffering=0) as file:
            try:
                while True: file.write(b"x" * 4096)
            except OSError: pass
    return kept(*given, **named)
place.{function} = spy
"""
MOMENTS = {
    "caching": ("from experiments.data import cache as place", "decode", 90, "cache"),
    "a line": ("from experiments.training.run_folder import RunFolder as place", "add", 1, "metrics.jsonl"),
    "a checkpoint": ("from experiments.training import checkpoint as place", "rotate", 2, "last.ckpt"),
    "the scores": ("from experiments.evaluation import evaluator as place", "write_scores", 1, "scores_last.csv"),
    "the result": ("from experiments.training.run_folder import RunFolder as place", "finish", 1, "result.json"),
}


@pytest.mark.slow
@pytest.mark.fault(6)
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_is_named_with_the_path_and_the_run_goes_on_when_there_is_space(
    finished, made_cars, small_disk, store_uri, moment
):
    disk = small_disk("80m")
    module, function, call, named = MOMENTS[moment]
    words, filler = small(made_cars, disk / "out", tracking_uri=store_uri), str(disk / "filler")
    done = injected(words, FULL.format(module=module, function=function, call=call, filler=filler))
    assert done.returncode == 1 and "The disk is full" in done.stderr and named in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list((disk / "out").rglob("result.json"))
    left = [path for name in ("*.tmp", "*.building-*") for path in (disk / "out").rglob(name)]
    assert not left  # it would keep the space that the next try needs
    assert moment != "the scores" or not list((disk / "out").rglob("scores*"))  # whole or not at all
    os.unlink(filler)
    code, shown, complaint = typed(words)
    assert code == 0, complaint
    assert ("Resuming" in shown) == (moment in ("a checkpoint", "the scores", "the result")), (
        shown
    )  # what was there is intact
    assert digests(run_folder(disk / "out")) == digests(run_folder(finished))


@pytest.mark.slow
@pytest.mark.fault(28)
def test_an_output_folder_that_cannot_be_written_is_refused_in_one_sentence(made_cars, small_disk, tmp_path):
    disk, elsewhere = small_disk("1m"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    code, _, complaint = typed(small(made_cars, disk / "out"), cwd=elsewhere)
    assert not list(elsewhere.iterdir())
    assert code == 2 and "cannot be written" in complaint and str(disk) in complaint, complaint
    assert len(complaint.strip().splitlines()) == 1


@pytest.mark.fault(19)
@pytest.mark.parametrize("torn", ['{"epoch": 3', '{"epoch": 3}', "\udce9"])
def test_a_torn_last_line_is_left_out_and_nothing_else(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": 2}\n' + torn.encode(errors="surrogateescape"))
    assert (
        run_files.read_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]
        and run_files.read_json_lines(tmp_path / "none") == []
    )


@pytest.mark.fault(19)
@pytest.mark.parametrize("bad", [b'{"epoch": 2', b"", b"2", b"\xff\xfe"])
def test_a_damaged_line_before_the_last_is_an_error_with_its_number(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + bad + b'\n{"epoch": 3}\n')
    with pytest.raises(InputError, match=r"Line 2 of .*metrics\.jsonl is damaged"):
        run_files.read_json_lines(path)


def unfinish(finished, place):
    """A copy of a run as a kill just before its record would leave it."""
    output = shutil.copytree(finished, place)
    (run_folder(output) / "result.json").unlink()
    return output, run_folder(output) / "metrics.jsonl"


@pytest.mark.fault(11)
@pytest.mark.parametrize("how", ["one is missing", "one is there twice", "one is damaged"])
def test_epochs_that_were_changed_since_are_refused_and_not_mixed(
    finished, made_cars, tmp_path, command, store_uri, how
):
    output, metrics = unfinish(finished, tmp_path / "out")
    first, second = metrics.read_text().splitlines(keepends=True)
    metrics.write_text(
        {"one is missing": second, "one is there twice": first + first + second}.get(how, first[9:] + second)
    )
    code, _, complaint = command(*small(made_cars, output, tracking_uri=store_uri))
    assert code == 2 and "metrics.jsonl" in complaint and "rm -r" in complaint
    assert not (metrics.parent / "result.json").exists()


@pytest.mark.fault(19)
def test_a_run_with_a_torn_last_line_ends_like_an_undisturbed_one(finished, made_cars, tmp_path, command, store_uri):
    output, metrics = unfinish(finished, tmp_path / "out")
    metrics.write_text(metrics.read_text() + '{"epoch": 3, "val/')
    code, _, complaint = command(*small(made_cars, output, tracking_uri=store_uri))
    assert code == 0, complaint
    assert digests(run_folder(output)) == digests(run_folder(finished))


@pytest.mark.fault(11)
@pytest.mark.parametrize("name", ["metrics.jsonl", "scores_best.csv", "scores_last.csv", "result.json"])
def test_a_number_changed_after_the_end_of_a_run_is_noticed(finished, made_cars, tmp_path, command, store_uri, name):
    output = shutil.copytree(finished, tmp_path / "out")
    path = run_folder(output) / name
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    code, _, complaint = command(*small(made_cars, output, tracking_uri=store_uri))
    assert code == 2 and f"{name} was changed since the run was finished" in complaint


@pytest.mark.fault(10)
def test_an_image_that_changes_while_it_is_decoded_leaves_no_cache(made_cars, tmp_path):
    folder = shutil.copytree(made_cars, tmp_path / "cars")
    samples = carvana.build(folder)
    with pytest.raises(InputError, match="were changed while they were in use"):
        cache.open_cache(
            samples, (48, 32), tmp_path / "cache", "f00", lambda *_: shutil.copy(samples[1].image, samples[0].image)
        )
    assert not list((tmp_path / "cache").glob("f00-48x32")) and not list((tmp_path / "cache").glob("*.building-*"))


@pytest.mark.fault(4)
def test_waiting_for_the_cache_of_another_process_can_be_interrupted(made_cars, tmp_path):
    def stop(done, total):
        raise Interrupted

    with FileLock(tmp_path / "f00-48x32.lock"), pytest.raises(Interrupted):
        cache.open_cache(carvana.build(made_cars), (48, 32), tmp_path, "f00", stop)


@pytest.mark.fault(12)
@pytest.mark.parametrize("how", ["one bit", "other data"])
def test_a_cache_of_the_right_size_with_the_wrong_bytes_is_rebuilt(made_cars, tmp_path, how):
    samples = carvana.build(made_cars)
    before = np.array(cache.open_cache(samples, (48, 32), tmp_path, "f00").images)
    path = tmp_path / "f00-48x32" / "images.u8"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data if how == "one bit" else data[::-1])
    assert np.array_equal(cache.open_cache(samples, (48, 32), tmp_path, "f00").images, before)
    assert json.loads((tmp_path / "f00-48x32" / "cache.json").read_text())["sha256"]
