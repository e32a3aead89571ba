"""The public imports that README and docs show: available in a fresh process, and never shadowed by a module."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "registry": ["MODELS", "LOSSES", "AUGMENTATIONS", "DATASETS"],
    "experiments.evaluation": ["score"],
    "experiments.data": ["split", "Sample", "ImageDataset"],
    "experiments.config": ["RunConfig"],
    "experiments.inference": ["load"],
    "analysis.statistics": ["compare", "compare_all", "against_baseline", "best_set", "look_level"],
}
# Libraries that take seconds are imported once; then a fork, fresh as to the project's own modules, tries each package.
PROGRAM = f"""
import importlib, os, pkgutil, sys, types
import numpy, torch, albumentations, matplotlib.figure, pandas, scipy.stats
for name, public in {PUBLIC!r}.items():
    if os.fork():
        if os.wait()[1]:
            sys.exit(1)
        continue
    assert not [module for module in sys.modules if module.split(".")[0] in ("registry", "experiments", "analysis")]
    package = importlib.import_module(name)
    before = [getattr(package, part) for part in public]
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        importlib.import_module(name + "." + module.name)
    after = [getattr(package, part) for part in public]
    assert all(one is other for one, other in zip(before, after)), (before, after)
    assert not any(isinstance(value, types.ModuleType) for value in after), after
    print(name)
    break
"""


def run(program):
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_public_names_are_the_same_before_and_after_all_submodules_are_imported():
    done = run(PROGRAM)
    assert (done.returncode, done.stdout.split()) == (0, list(PUBLIC)), done.stderr


@pytest.mark.parametrize(("package", "name"), [(package, name) for package in PUBLIC for name in PUBLIC[package]])
def test_no_module_bears_the_name_of_a_public_function(package, name):
    folder = ROOT / package.replace(".", "/")
    assert not (folder / f"{name}.py").exists() and not (folder / name).exists()


@pytest.mark.parametrize(
    "package", ["experiments.data", "experiments.evaluation", "experiments.config", "experiments.inference"]
)
def test_importing_a_package_does_not_import_torch(package):
    done = run(f"import sys, {package}; assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_score_and_image_dataset_keep_their_contract(made_cars):
    from experiments.data import ImageDataset, Sample, split
    from experiments.data.carvana import build
    from experiments.evaluation import score

    samples = build(made_cars)
    assert isinstance(samples[0], Sample)
    assert {*split(samples, by="car", seed=0, fold=None).__dict__} == {"train", "val", "test"}
    image, mask = ImageDataset(samples, size=(48, 32))[0]
    assert image.shape == (3, 32, 48) and image.min() >= 0 and image.max() <= 1 and str(image.dtype) == "torch.float32"
    assert mask.shape == (1, 32, 48) and set(mask.unique().tolist()) == {0.0, 1.0}
    truth = mask[0].numpy() > 0
    names = ["tp", "fp", "fn", "tn", "dice", "iou", "precision", "recall", "boundary_iou", "hd95"]
    assert list(vars(score(truth, truth))) == names and score(truth, truth).dice == 1.0
