"""No file that this project did not write is replaced or deleted, whatever is typed."""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from analysis.records.output_files import LIST, OutputFiles
from registry import InputError
from tests.conftest import examples
from tests.strangers import scene


def digest(content):
    return hashlib.sha256(content).hexdigest()


def snapshot(folder):
    """Each file's content, and each link's target, by path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    return {path: os.readlink(path) if path.is_symlink() else digest(path.read_bytes()) for path in paths}


NAMES = ("a.png", "A.PNG", "deep/a.png", "b.csv")
LINES = st.sampled_from([
    '{{"name": "a.png", "sha256": "00{hash}"}}\n', '{{"name":"../user/mine.png","sha256":"{hash}"}}\n', "not JSON\n",
    '{{"name": "/a.png", "sha256": "{hash}"}}\n', '{{"name": "b.csv", "sha256": "00"}}\n', '{{"name": "a.p', "[]\n",
    '{{"name": "deep/a.png", "sha256": "{hash}"}}\n', "[" * 9000 + "\n", "",
])  # fmt: skip
STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from([b"1", b"2", b"333"])),
    st.tuples(st.just("crash"), st.sampled_from(NAMES), st.sampled_from([b"1", b"4"])),
    st.tuples(st.just("user"), st.sampled_from(NAMES), st.sampled_from([b"mine", b"mine as well"])),
    st.tuples(st.just("link"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("list"), LINES, st.just(None)),
    st.tuples(st.just("delete"), st.sampled_from(NAMES), st.just(None)),
)


def written_by_user(folder, step, name, what):
    """What a user does: write, link or delete a file, or write a list. Returns the paths that are then the user's."""
    path = folder / name
    if step == "list":
        with open(folder / LIST, "a") as file:
            file.write(name.format(hash=digest(b"mine")))
        return []
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if step == "user":
        path.write_bytes(what)
    elif step == "link":
        (os.symlink if what else os.link)(folder.parent / "user" / "mine.png", path)
    return [path]


@examples(150)
@given(st.lists(STEPS, max_size=9))
def test_neither_hostile_lists_nor_links_nor_crashes_make_a_users_file_an_own_one(steps):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "out"
        for made in (folder, Path(place) / "user"):
            made.mkdir()
        (Path(place) / "user" / "mine.png").write_bytes(b"mine")
        theirs = {Path(place) / "user" / "mine.png": b"mine"}
        for step, name, what in steps:
            if step in ("write", "crash"):
                with pytest.MonkeyPatch.context() as patch:
                    if step == "crash":
                        patch.setattr("analysis.records.output_files._place_new", fail)
                        patch.setattr("os.replace", fail)
                    with contextlib.suppress(InputError, KeyboardInterrupt):
                        OutputFiles(folder).write(name, what)
            else:
                for path in written_by_user(folder, step, name, what):
                    theirs.pop(path, None)
                    if path.exists():
                        theirs[path] = path.read_bytes()
            assert {path: path.read_bytes() for path in theirs} == theirs, (step, name)


def fail(*_):
    raise KeyboardInterrupt


def test_an_interruption_between_list_and_file_leaves_what_the_next_run_can_go_on_with(tmp_path, monkeypatch):
    OutputFiles(tmp_path).write("a.png", b"old")
    for content in (b"new", b"newer"):
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", fail)
            with pytest.raises(KeyboardInterrupt):
                OutputFiles(tmp_path).write("a.png", content)
        assert (tmp_path / "a.png").read_bytes() == b"old"
        OutputFiles(tmp_path).write("a.png", content)
        assert (tmp_path / "a.png").read_bytes() == content
        OutputFiles(tmp_path).write("a.png", b"old")
    with open(tmp_path / LIST, "ab") as file:
        file.write(b'{"name": "b.p')  # cut short by a crash
    OutputFiles(tmp_path).write("b.png", b"1")
    OutputFiles(tmp_path).write("b.png", b"2")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", LIST}


def test_a_file_that_comes_up_meanwhile_is_not_replaced(tmp_path):
    files = OutputFiles(tmp_path)
    files.check(["a.png"])
    opened = files.open("a.png")
    opened.__enter__().write(b"ours")
    (tmp_path / "a.png").write_bytes(b"mine")
    with pytest.raises(InputError, match="not written by this project"):
        opened.__exit__(None, None, None)
    assert (tmp_path / "a.png").read_bytes() == b"mine"


def test_a_list_that_is_a_link_or_has_another_name_is_not_written_through(tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"name": "x", "sha256": "0" * 64}) + "\n")
    before = other.read_bytes()
    for link in (os.link, os.symlink):
        folder = tmp_path / link.__name__
        folder.mkdir()
        link(other, folder / LIST)
        with contextlib.suppress(InputError):
            OutputFiles(folder).write("a.png", b"1")
        assert other.read_bytes() == before
    assert (tmp_path / "link" / "a.png").exists()


def test_the_sentence_says_why_and_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = OutputFiles(Path("my masks"))
    files.write("own.png", b"1")
    files.write("changed.png", b"1")
    for name in ("changed.png", "foreign.png"):
        (tmp_path / "my masks" / name).write_bytes(b"mine")
    (tmp_path / "my masks" / "folder.png").mkdir()
    for name, reason in (
        ("changed.png", "was changed since this project wrote it"),
        ("foreign.png", "was not written by this project"),
        ("folder.png", "is no ordinary file"),
        (LIST, "is the name of the list"),
    ):
        with pytest.raises(InputError) as caught:
            files.check(["own.png", name])
        assert (
            str(caught.value)
            == (
                f"my masks/{name} {reason} and is not replaced. Nothing was written. "
                "Name another folder, such as --output 'my masks-2'"
            )
            or name == LIST
        )
    with pytest.raises(InputError, match="is an input of this command"):
        files.check(["own.png"], [tmp_path / "my masks" / "own.png"])
    with pytest.raises(InputError, match=r"own.png is a file, not a folder"):
        files.check(["own.png/b.png"])
    files.check(["own.png", "new.png"], [tmp_path / "my masks" / "changed.png"])


# ------------------------------------------------------------------------------------------------ whole commands


def write_untrained_run(output):
    """A run's folder with the weights of an untrained network, enough for predict, evaluate and submit."""
    from experiments.config import RunConfig
    from experiments.training import checkpoint
    from registry import MODELS

    folder = output / "runs" / "aaaa"
    folder.mkdir(parents=True)
    config = RunConfig(model="unet", model_kwargs={"width": 4}, loss="bce", data="folder", size=(48, 32))
    (folder / "config.json").write_text(json.dumps({"config": dataclasses.asdict(config)}))
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint.save(folder / name, {"model": MODELS["unet"].build(width=4).state_dict()})
    (folder / "result.json").write_text(json.dumps({"validation_dice": 0.5, "headline": "last"}))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """What a user has: images and masks drawn by hand, other files among them, a table of scores, a zip, a run."""
    root = tmp_path_factory.mktemp("template") / "world"
    for place in ("images/deep", "masks", "test", "out"):
        (root / place).mkdir(parents=True)
    for number, name in enumerate(("a", "b", "deep/a")):
        photo, mask = scene(60, 40, number)
        Image.fromarray(photo).save(root / "images" / f"{name}.png")
        if "/" not in name:
            Image.fromarray(mask).save(root / "masks" / f"{name}.png")
            Image.fromarray(photo).save(root / "test" / f"{name}.jpg")
    for name in ("images/c.heic", "images/notes.txt", "images/desktop.ini", "masks/Thumbs.db", "out/scores.csv"):
        (root / name).write_text(name)
    rows = [f"{cell},{seed},{np.random.default_rng(seed).random():.3f}" for cell in "xy" for seed in range(3)]
    (root / "s.csv").write_text("\n".join(["cell,seed,dice", *rows]) + "\n")
    with zipfile.ZipFile(root / "t.zip", "w") as archive:
        archive.write(root / "test" / "a.jpg", "train/a_01.jpg")
    write_untrained_run(root / "outputs")
    return root


PLACES = st.sampled_from(
    [".", "out", "images", "masks", "images/out", "images/deep", "new", "NEW", "a link", "s.csv", "test", "outputs"]
)
FILES = st.builds(
    lambda folder, name: f"{folder}/{name}",
    PLACES,
    st.sampled_from(["s.csv", "a.png", "A.png", "scores.csv", "new.html", LIST, "U-Net.png"]),
)
INPUTS = st.lists(
    st.sampled_from(["images", ".", "images/a.png", "images/*", "images/deep", "masks/*.png", "images/./a.png", "new"]),
    min_size=1,
    max_size=2,
)


def options(*names):
    return st.lists(st.sampled_from(names), unique=True)


COMMANDS = st.one_of(
    st.builds(
        lambda inputs, output, extra: ["predict", *inputs, "--run", "aaaa", *output, *extra],
        INPUTS,
        st.one_of(st.just([]), PLACES.map(lambda place: ["--output", place])),
        options("--overlay", "--cutout", "--list-skipped"),
    ),
    st.builds(
        lambda folders, output, extra: ["score", *folders, "--output", output, *extra],
        st.sampled_from([("masks", "masks"), ("new", "masks"), ("images", "masks")]),
        FILES,
        options("--append"),
    ),
    st.builds(
        lambda json_file, html: ["judge", "s.csv", "--score", "dice", "--cell", "cell", "--seed", "seed", "--json",
                                 json_file, *(["--html", html] if html else [])],
        FILES,
        st.one_of(st.none(), FILES),
    ),
    st.builds(
        lambda output, extra: ["evaluate", "--run", "aaaa", "--data-dir", ".", *output, *extra],
        PLACES.map(lambda place: ["--output", place]),
        options("--sweep"),
    ),
    st.builds(lambda output: ["submit", "--run", "aaaa", "--test-dir", "test", "--output", output], FILES),
    st.builds(lambda place: ["data", "make", "--cars", "1", "--size", "32x32", "--data-dir", place], PLACES),
    st.builds(lambda place: ["data", "import", "t.zip", "--data-dir", place], PLACES),
    st.builds(lambda place: ["draw", "--width", "2", "--size", "32x32", "--output", place], PLACES),
)  # fmt: skip
EDITS = st.sampled_from([None, None, "new/a.png", "out/a.png", "outputs/predictions/a.png", "new/s.csv"])


def typed(words):
    """(exit code, what was printed) of a command."""
    import run

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
        return run.main(words), shown.getvalue()


# failing examples are not shrunk, since each is a sequence of whole commands and would take minutes
@settings(examples(15), phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(commands=st.lists(st.tuples(COMMANDS, EDITS), min_size=1, max_size=3))
@example(commands=[(["predict", "images", "--run", "aaaa", "--output", "masks"], None)])
@example(commands=[(["predict", "images/a.png", "images/b.png", "--run", "aaaa", "--output", "images"], None)])
@example(
    commands=[(["predict", "images", "--run", "aaaa"], "outputs/predictions/a.png"), (["predict", "images"], None)]
)
@example(commands=[(["score", "masks", "masks", "--output", "new/s.csv"], "new/s.csv")] * 2)
def test_no_command_changes_a_file_that_was_there_and_each_can_be_repeated(world, commands):
    before_all = os.getcwd()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place).resolve() / "world"
        shutil.copytree(world, root)
        os.symlink("images", root / "a link")
        os.link(root / "images" / "b.png", root / "out" / "b.png")
        theirs = snapshot(root)
        os.chdir(root)
        try:
            for words, edit in commands:
                check_command(root, words, theirs)
                if edit and (root / edit).is_file():  # corrected by hand: it is the user's now
                    (root / edit).write_bytes((root / edit).read_bytes() + b"corrected")
                    theirs[root / edit] = digest((root / edit).read_bytes())
        finally:
            os.chdir(before_all)


def check_command(root, words, theirs):
    before = snapshot(root)
    code, shown = typed(words)
    after = snapshot(root)
    assert code in (0, 1, 2) and "Traceback" not in shown, (words, shown)
    assert {path: after.get(path) for path in theirs} == theirs, (words, shown)
    assert code != 2 or after == before, (words, shown)
    if code == 0 and "--append" not in words:
        assert typed(words)[0] == 0, (words, shown)
        assert set(snapshot(root)) == set(after), words
