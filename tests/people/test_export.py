"""`run.py export`: a graph that runs without this project and without PyTorch, and an MLflow model of it."""

import json
import re
import shutil
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import mlflow
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from analysis.records.output_files import OutputFiles
from experiments.config.schema import RunConfig
from experiments.data.samples import read_image
from experiments.evaluation.evaluator import enlarge
from experiments.inference import export
from experiments.inference.trained_model import TrainedModel, load
from experiments.runtime.errors import RunFailed
from models import blocks
from registry import MODELS
from tests.conftest import ROOT

SIZES = [(1, 97, 131), (3, 97, 131), (2, 32, 33), (1, 200, 64), (1, 572, 572), (2, 128, 192)]  # (N, H, W)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The trained run's graph, and what the command printed."""
    folder = tmp_path_factory.mktemp("exported")
    words = ["export", "--run", trained.name, "--output-dir", trained.parent.parent, "--output", folder / "car.onnx"]
    done = subprocess.run(
        [sys.executable, "run.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return folder / "car.onnx", done


def graph_and_network(name, tmp_path, **options):
    torch.manual_seed(0)
    model = MODELS[name].build(**options).eval()
    for module in model.modules():  # batch statistics that a training would leave
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    path = tmp_path / "model.onnx"
    path.write_bytes(export.to_onnx(export.Deployed(model).eval(), {"input": "", "output": ""}))
    return path, model


def differences(path, model, sizes):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for number, (n, height, width) in enumerate(sizes):
        photographs = np.random.default_rng(number).uniform(0, 255, (n, 3, height, width)).astype(np.float32)
        (found,) = session.run(None, {"photograph": photographs})
        with torch.no_grad():
            expected = model(torch.from_numpy(photographs / 255)).sigmoid().numpy()
        assert found.shape == (n, 1, height, width)
        yield np.abs(found - expected).max()


def test_the_graph_takes_any_size_and_number_and_says_what_pytorch_says(exported, trained):
    assert max(differences(exported[0], load(trained), SIZES)) < 1e-5


TRIED = {
    "unet": {"width": 2, "up": "bilinear"},
    "attention_unet": {"width": 2},
    "resnet_unet": {"encoder": "resnet18", "pretrained": False},
    "smp": {"arch": "PAN", "encoder": "resnet18", "pretrained": False},  # pads to 128 at least
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_of_the_registry_is_exported_for_any_size(name, tmp_path):
    sizes = [(1, 97, 131), (2, 33, 32), (1, 128, 192)]
    assert max(differences(*graph_and_network(name, tmp_path, **TRIED.get(name, {})), sizes)) < 1e-4


@pytest.mark.slow
def test_a_network_that_no_graph_of_every_size_holds_is_exported_for_one(tmp_path):
    """PSPNet pools to fixed grids, which ONNX Runtime cannot do at every size."""
    torch.manual_seed(0)
    network = MODELS["smp"].build(arch="PSPNet", encoder="mobilenet_v2", pretrained=False)
    model, images = export.Deployed(network).eval(), np.full((2, 3, 96, 192), 100, np.float32)
    metadata = {"input": "x", "output": "y", "trained_at": "192x96"}

    def difference(size):
        (tmp_path / "net.onnx").write_bytes(export.to_onnx(model, metadata, size))
        return export.largest_difference(tmp_path / "net.onnx", model, images, size)

    with pytest.raises(RunFailed, match=r"cannot be exported as a graph for every size .* add --size 192x96"):
        difference(None)
    assert difference((192, 96)) < 1e-4


def test_the_padding_of_a_graph_is_that_of_the_network_pixel_for_pixel():
    for height, width, multiple, least in ((97, 131, 16, 32), (32, 33, 32, 128), (128, 64, 32, 32), (37, 32, 224, 224)):
        image = torch.rand(2, 3, height, width)
        looked_up = blocks._mirrored(blocks._mirrored(image, -2, multiple, least), -1, multiple, least)
        assert torch.equal(looked_up, blocks.pad(image, multiple, least))


def test_an_image_goes_in_as_it_is_and_the_mask_of_predict_comes_out(exported, command, trained, made_cars, tmp_path):
    """At the run's own input size nothing is resized: the graph's mask is the command's."""
    from PIL import Image

    source = sorted((made_cars / "train").glob("*.jpg"))[0]
    Image.open(source).resize((48, 32)).save(tmp_path / "small.png")
    where = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "masks")
    assert command("predict", tmp_path / "small.png", *where)[0] == 0
    session = onnxruntime.InferenceSession(str(exported[0]), providers=["CPUExecutionProvider"])
    photograph = read_image(tmp_path / "small.png").transpose(2, 0, 1)[None].astype(np.float32)
    (probability,) = session.run(["probability"], {"photograph": photograph})
    found = np.asarray(Image.open(tmp_path / "masks" / "small.png")) > 0
    clear = np.abs(probability[0, 0] - 0.5) > 1e-5
    assert 0 < found.sum() < found.size and np.array_equal((probability[0, 0] > 0.5)[clear], found[clear])


def test_the_largest_difference_on_the_runs_validation_images_is_printed(exported):
    done = exported[1]
    (number,) = re.findall(
        r"Largest difference from PyTorch's probabilities on 4 validation images: (\S+)", done.stdout
    )
    assert 0 <= float(number) < 1e-4 and "Warning" not in done.stderr


def test_the_graph_says_what_goes_in_and_what_comes_out(exported, trained):
    graph = onnx.load(str(exported[0]))
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    assert "0 to 255" in metadata["input"] and "probability" in metadata["output"]
    assert metadata["trained_at"] == "48x32" and metadata["run"] == trained.name
    for place, channels in ((graph.graph.input[0], 3), (graph.graph.output[0], 1)):
        dims = [dim.dim_param or dim.dim_value for dim in place.type.tensor_type.shape.dim]
        assert dims == ["batch", channels, "height", "width"]


def test_a_graph_that_differs_from_the_network_is_not_written(command, trained, tmp_path, monkeypatch):
    class Other(torch.nn.Module):
        def forward(self, photograph):
            return photograph[:, :1] / 255

    graph = export.to_onnx(Other(), {"input": "", "output": ""})
    monkeypatch.setattr(export, "to_onnx", lambda *_: graph)
    where = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "car.onnx")
    code, _, complaint = command("export", *where)
    assert code == 1 and "differs from the network" in complaint and not (tmp_path / "car.onnx").exists()


def test_a_graph_that_differs_at_other_sizes_alone_is_offered_for_one(command, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(export, "largest_difference", lambda graph, model, images, size: 1.0 if size is None else 0.0)
    where = ("--run", trained.name, "--output-dir", trained.parent.parent, "--output", tmp_path / "car.onnx")
    code, _, complaint = command("export", *where)
    assert code == 1 and "at other sizes" in complaint and "add --size 48x32" in complaint
    assert not (tmp_path / "car.onnx").exists()


def test_a_graph_that_the_checker_refuses_ends_in_a_sentence(monkeypatch):
    def refuse(_):
        raise onnx.checker.ValidationError("no valid graph")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    metadata = {"input": "", "output": "", "trained_at": "48x32"}
    network = export.Deployed(torch.nn.Conv2d(3, 1, 1)).eval()
    with pytest.raises(RunFailed, match=r"\(no valid graph\).* --size 48x32"):
        export.to_onnx(network, metadata)


def test_the_mlflow_model_is_loaded_in_three_lines_without_this_project(
    command, trained, made_cars, tmp_path, monkeypatch
):
    """And lies among the artifacts of the run that it comes from."""
    from mlflow import MlflowClient
    from mlflow.tracking._tracking_service import utils

    # MLflow remembers per process where a run's files lie; here the same run also lies in the store it was copied from
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())
    outputs = shutil.copytree(trained.parent.parent, tmp_path / "outputs")
    code, shown, complaint = command(
        "export", "--run", trained.name, "--format", "mlflow", "--output-dir", outputs, "--output", tmp_path / "car"
    )
    assert code == 0, complaint
    lines = (
        "import numpy as np\n"
        "photographs = np.random.default_rng(0).uniform(0, 255, (2, 3, 50, 70)).astype(np.float32)\n"
        "import mlflow\n"
        f"model = mlflow.pyfunc.load_model({str(tmp_path / 'car')!r})\n"
        "probability = model.predict(photographs)['probability']\n"
        "import sys; assert not {'torch', 'registry', 'experiments', 'models'} & set(sys.modules)\n"
        "np.save('found.npy', probability)\n"
        "try:\n    model.predict(photographs[:, :2])\nexcept Exception as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "shape" in done.stdout  # the signature refuses two channels
    found = np.load(tmp_path / "found.npy")
    photographs = np.random.default_rng(0).uniform(0, 255, (2, 3, 50, 70)).astype(np.float32)
    with torch.no_grad():
        expected = load(trained)(torch.from_numpy(photographs / 255)).sigmoid().numpy()
    assert np.abs(found - expected).max() < 1e-5

    assert "among the artifacts" in shown
    client = MlflowClient(f"sqlite:///{outputs / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], f"tags.key = '{trained.name}'")
    assert "model/MLmodel" in {one.path for one in client.list_artifacts(run.info.run_id, "model")}


def test_a_nan_of_any_comparison_is_the_largest_difference(tmp_path, monkeypatch):
    class Session:
        def __init__(self, *_, **__):
            pass

        def run(self, _, given):
            return [np.zeros_like(given["photograph"][:, :1])]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    for bad in (1, 2, 97):  # the second batch, the first, and that of the odd size

        def network(images, bad=bad):
            return images[:, :1] * (torch.nan if bad in images.shape else 0)

        difference = export.largest_difference(tmp_path / "net.onnx", network, np.ones((2, 3, 32, 48), np.float32))
        assert np.isnan(difference)


@pytest.mark.parametrize("size", [(48, 32), None])
def test_the_signature_of_an_mlflow_model_has_the_size_of_its_graph(tmp_path, size):
    shape = ["n", 3, *(size[::-1] if size else ("h", "w"))]
    given, found = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("photograph", "probability")
    )
    node = onnx.helper.make_node("Identity", ["photograph"], ["probability"])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "net", [given], [found])), str(tmp_path / "net.onnx")
    )
    trained = TrainedModel(tmp_path / "key" / "last.ckpt", RunConfig(size=(48, 32)), {})
    files, images = OutputFiles(tmp_path / "car"), np.zeros((1, 3, 32, 48), np.float32)
    export._save_mlflow(tmp_path / "net.onnx", files, images, trained, tmp_path, None, size)
    model = mlflow.models.Model.load(str(tmp_path / "car"))
    sides = (32, 48) if size else (-1, -1)
    assert model.signature.inputs.inputs[0].shape == (-1, 3, *sides)
    assert model.signature.outputs.inputs[0].shape == (-1, 1, *sides)
    assert ("H 32, W 48" in model.metadata["input"]) == (size is not None)


def test_a_mask_enlarged_as_the_metadata_say_is_that_of_predict():
    """By logits: bilinear means of probabilities lie elsewhere."""
    trained = TrainedModel(Path("key/last.ckpt"), RunConfig(size=(48, 32)), {})
    words = export.described(trained)["resizing"]
    assert "cut the output to 1e-7 to 1 - 1e-7, take its logit, enlarge that bilinearly: above 0" in words
    logits = np.random.default_rng(0).normal(0, 4, (32, 48)).astype(np.float32)
    probability = 1 / (1 + np.exp(-logits))
    cut = np.clip(probability, 1e-7, 1 - 1e-7)
    expected = enlarge(logits, (480, 320)) > 0
    assert (enlarge(np.log(cut / (1 - cut)), (480, 320)) > 0).mean() == pytest.approx(expected.mean(), abs=1e-4)
    assert ((enlarge(probability, (480, 320)) > 0.5) != expected).mean() > 0.01


def test_without_the_runs_images_synthetic_cars_are_compared_on_and_this_is_reported(
    command, trained, made_cars, tmp_path, monkeypatch
):
    folder = shutil.copytree(trained, tmp_path / trained.name)
    content = json.loads((folder / "config.json").read_text())
    content["machine"]["data_dir"] = "/no/such/place"
    (folder / "config.json").write_text(json.dumps(content))
    monkeypatch.setattr(export, "to_onnx", lambda *_: b"")
    different = lambda graph, model, shown, size: float(shown.shape != (4, 3, 32, 48))  # noqa: E731
    monkeypatch.setattr(export, "largest_difference", different)
    code, shown, complaint = command("export", "--run", folder, "--output", tmp_path / "car.onnx")
    assert code == 0 and "4 synthetic images" in shown and "--photographs" in complaint
    words = ("export", "--run", folder, "--output", tmp_path / "car.onnx", "--photographs", made_cars / "train")
    assert "on 4 images" in command(*words)[1]


def test_invalid_arguments_are_refused_in_one_sentence(command, trained, tmp_path, monkeypatch):
    where = ("--run", trained.name, "--output-dir", trained.parent.parent)
    (tmp_path / "car").mkdir()
    for words, sentence in (
        (["--format", "onx"], 'Did you mean "onnx"'),
        (["--format", "mlflow", "--output", tmp_path / "car"], "exists already"),
        (["--photographs", tmp_path / "none"], "names no image"),
    ):
        code, _, complaint = command("export", *where, *words)
        assert code == 2 and sentence in complaint and len(complaint.strip().splitlines()) == 1
    import importlib.util

    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there(name))
    code, _, complaint = command("export", *where)
    assert code == 2 and "onnxscript" in complaint and "pip install" in complaint
