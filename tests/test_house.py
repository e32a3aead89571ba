"""The layers: which package may import which, the one door of each heavy library, and what the repository holds."""

import ast
import itertools
import re
import subprocess

import pytest

from tests.conftest import ROOT

# A package may import those that stand before it in its row. `experiments` may import `analysis` (`analysis.report`
# from the commands only); `analysis` and `models` import nothing of `experiments`.
LAYERS = (
    ("runtime", "config", "data", "tracking", "evaluation", "training", "bench", "inference", "studies", "commands"),
    ("statistics", "records", "verdicts", "text", "plots", "report"),
)
ALLOWED = {
    "run": {"registry", "experiments", "analysis"},
    "registry": set(),
    "models": {"registry"},
    "analysis": {"registry"},
    "experiments": {"registry", "models", "analysis"},
}
LONGEST = 45  # lines of a function, with its signature and docstring
DOORS = {
    "mlflow": {"experiments.tracking"},
    "optuna": {"experiments.studies.trial_queue"},
    "segmentation_models_pytorch": {"models.zoo"},
    "timm": {"models.zoo"},
    "huggingface_hub": {"models.weights"},
    "albumentations": {"experiments.data.augment"},
    "kagglehub": {"experiments.data.download"},
    "ray": {"experiments.studies.ray_executor"},
    "onnx": {"experiments.inference.export"},
    "onnxruntime": {"experiments.inference.export"},
    "gradio": {"experiments.inference.demo"},
}
TOP = {
    "models", "experiments", "analysis", "registry.py", "run.py", "README.md", "README.zh-CN.md", "LICENSE",
    "U-Net.png",
    "tests",
    "requirements.txt", "requirements.lock", "requirements-dev.lock", "requirements-judge.txt",
    "requirements-page.txt", "requirements-ray.txt",
    "docs", "reference", "requirements-dev.txt", "Makefile", "pyproject.toml", ".ci", ".git", ".gitignore", ".github",
    "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff",
}  # fmt: skip


def modules():
    """Every module of the production code, by its dotted name, as a syntax tree."""
    folders = [path for name in ("models", "experiments", "analysis") for path in (ROOT / name).rglob("*.py")]
    for path in [ROOT / "run.py", ROOT / "registry.py", *folders]:
        if path.name != "__init__.py":
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text(encoding="utf-8"))


MODULES = dict(modules())


def imports(tree):
    """The dotted names that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def project_imports(name):
    """The project's modules that a module imports."""
    for imported in imports(MODULES[name]):
        parts = imported.split(".")
        prefixes = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
        yield from itertools.islice((prefix for prefix in prefixes if prefix in MODULES), 1)


def refusal(importer, imported):
    """Why one module may not import the other; None if it may."""
    (root, *inner), (other, *within) = importer.split("."), imported.split(".")
    if root != other:
        if other not in ALLOWED[root]:
            return f"{root} imports nothing of {other}"
        report = root == "experiments" and within[:1] == ["report"] and inner[0] != "commands"
        return "only the commands import analysis.report" if report else None
    layers = next((row for row in LAYERS if inner and inner[0] in row), ())
    if layers and layers.index(within[0]) > layers.index(inner[0]):
        return f"{inner[0]} lies below {within[0]}"
    return None


@pytest.mark.parametrize("name", MODULES)
def test_imports_only_go_down(name):
    for imported in project_imports(name):
        assert refusal(name, imported) is None, f"{name} imports {imported}: {refusal(name, imported)}"


def test_no_study_imports_the_benchmark():
    reached, left = set(), ["experiments.commands.study"]
    while left:
        reached.add(name := left.pop())
        left += set(project_imports(name)) - reached
    assert "experiments.studies.estimates" in reached and not [name for name in reached if ".bench." in f"{name}."]


def test_no_module_lies_flat_and_every_package_has_a_layer():
    for name in MODULES:
        root, *inner = name.split(".")
        if root in ("experiments", "analysis"):
            assert len(inner) > 1 and any(inner[0] in row for row in LAYERS), name


def test_imports_form_no_cycle():
    left = {name: set(project_imports(name)) - {name} for name in MODULES}
    while ready := [name for name, needed in left.items() if not needed]:
        left = {name: needed - set(ready) for name, needed in left.items() if name not in ready}
    assert not left, f"cycles among {sorted(left)}"


@pytest.mark.parametrize("package", DOORS)
def test_each_heavy_library_has_one_door(package):
    users = {name for name, tree in MODULES.items() if any(i.split(".")[0] == package for i in imports(tree))}
    assert all(any(f"{name}.".startswith(f"{door}.") for door in DOORS[package]) for name in users), users


def test_analysis_imports_neither_torch_nor_mlflow():
    for name in MODULES:
        roots = {imported.split(".")[0] for imported in imports(MODULES[name])}
        assert not name.startswith("analysis.") or not roots & {"torch", "mlflow"}, name


@pytest.mark.parametrize("name", MODULES)
def test_no_function_is_too_long(name):
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST, f"{name}.{node.name} has {length} lines"


def tracked():
    """The paths in the repository."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_no_module_is_a_catch_all():
    assert not {path.rpartition("/")[2] for path in tracked()} & {"utils.py", "helpers.py", "common.py", "misc.py"}


def test_the_top_level_holds_only_what_belongs_there():
    assert {path.split("/")[0] for path in tracked()} <= TOP


def test_the_repository_holds_no_data_or_weights():
    assert not [path for path in tracked() if path.lower().endswith((".jpg", ".jpeg", ".gif", ".ckpt", ".pth", ".db"))]


def locked(name):
    """The packages of a lock file: {name: version}, each of which has a hash."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text  # the address of an index would be the author's own
    entries = re.findall(
        r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)[^\\\n]*((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", text, re.M
    )
    assert len(entries) == len(re.findall(r"^[a-z0-9]", text, re.M)) > 50
    return {name: version for name, version, _ in entries}


@pytest.mark.parametrize(
    ("lock", "files"),
    [("requirements.lock", ["requirements.txt"]),
     ("requirements-dev.lock", ["requirements.txt", "requirements-dev.txt", "requirements-ray.txt"])],
)  # fmt: skip
def test_the_lock_files_hold_what_is_required_with_hashes(lock, files):
    found = locked(lock)
    for file in files:
        for name, version in re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / file).read_text(encoding="utf-8"), re.M):
            assert found[name.lower()] == version, f"{lock} is behind {file}: type make lock"
    assert found["torch"].startswith("2.") and found["pillow"].startswith("13.")
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()
