"""RunConfig: keys never change, fields may be added; one table of types serves flags, config files and study files."""

import csv
import dataclasses
import json
from dataclasses import dataclass

import pytest

from analysis.records.study_paths import RESULTS
from experiments.config import resolve as resolving
from experiments.config import schema, values
from experiments.config.resolve import resolve
from experiments.config.schema import PRESETS, RunConfig, setting, setting_fields, setting_types
from experiments.config.values import ParsedArgs
from experiments.studies import study_file
from experiments.studies.definition import merged
from registry import InputError
from tests.conftest import ROOT

OLD = RunConfig(model_kwargs={"width": 4})


@dataclass(frozen=True)
class Newer(RunConfig):
    """A RunConfig of a later version, with a field that the committed ones lack."""

    new_setting: int = setting(16, "a setting", "Data", since="0.2")


NEWER = Newer(**dataclasses.asdict(OLD))


def test_a_field_added_later_changes_no_key_while_it_has_its_default():
    assert NEWER.key == OLD.key and NEWER.to_dict() == OLD.to_dict() and NEWER.settings() == OLD.settings()
    assert dataclasses.replace(NEWER, new_setting=4).key != OLD.key
    assert dataclasses.replace(NEWER, new_setting=4).to_dict() == {**OLD.to_dict(), "new_setting": 4}


def test_a_field_added_later_counts_as_its_default_where_a_config_lacks_it():
    assert Newer.from_dict(OLD.to_dict()) == NEWER
    assert Newer.from_dict({**OLD.to_dict(), "new_setting": 4}).new_setting == 4
    assert NEWER.same_settings(OLD.to_dict())
    assert not NEWER.same_settings({**OLD.to_dict(), "new_setting": 4})
    assert not dataclasses.replace(NEWER, new_setting=4).same_settings(OLD.to_dict())


ORIGINAL = [field.name for field in dataclasses.fields(RunConfig) if "since" not in field.metadata]


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_config_that_lacks_an_original_field_is_refused(name):
    config = {key: value for key, value in OLD.to_dict().items() if key != name}
    for version in (RunConfig, Newer):
        with pytest.raises(TypeError, match=name):
            version.from_dict(config)


def test_a_config_with_an_unknown_field_is_refused():
    with pytest.raises(TypeError, match="new_setting"):
        RunConfig.from_dict({**OLD.to_dict(), "new_setting": 4})


def test_a_run_folder_of_an_older_version_is_the_same_run(tmp_path):
    from experiments.config.schema import RuntimeConfig
    from experiments.training.run_folder import RunFolder

    folder = RunFolder(tmp_path / OLD.key)
    folder.begin(OLD, RuntimeConfig(), ["run.py"])
    folder.verify_config(NEWER)
    with pytest.raises(InputError, match="new setting 4"):
        folder.verify_config(dataclasses.replace(NEWER, new_setting=4))
    content = json.loads((tmp_path / OLD.key / "config.json").read_text())
    del content["config"]["seed"]
    (tmp_path / OLD.key / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="seed"):
        folder.verify_config(NEWER)


def test_every_field_of_the_first_version_is_in_every_key():
    assert list(OLD.to_dict()) == ORIGINAL and len(ORIGINAL) == 30
    assert schema.PROTOCOL == 1


def committed():
    """The committed configs: (study, key, config)."""
    for path in sorted(RESULTS.glob("*/configs.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for key, own in content["runs"].items():
            yield path.parent.name, key, {**content["shared"], **own}


COMMITTED = list(committed())


def test_every_committed_key_follows_from_its_config():
    assert len(COMMITTED) > 150
    for study, key, config in COMMITTED:
        assert RunConfig.from_dict(config).key == key, (study, key)


def planned(study, weights):
    """The configs of a study's cells on another machine than the committed runs': data, threads and rate are theirs."""
    for cell in study.cells():
        fields = merged(iter((study.settings, cell.fields))) | {"device": "cpu"}
        config = resolve(ParsedArgs(fields, {}, study.preset))[0]
        yield cell, dataclasses.replace(config, early_stopping=0, weights=weights if config.weights else "")


@pytest.fixture
def imagenet(monkeypatch):
    """Weights files count as those that the committed runs began from."""
    digests = {config["weights"] for *_, config in COMMITTED if config["weights"]}
    (digest,) = digests

    def weights(options):
        named = isinstance(options.get("pretrained"), str)
        return ({**options, "pretrained": "file"}, digest, None) if named else (options, "", None)

    monkeypatch.setattr(resolving, "_weights", weights)
    return digest


def odd_presets(monkeypatch):
    odd = {
        "data": "synthetic",
        "size": (64, 64),
        "width": 5,
        "epochs": 3,
        "batch_size": 5,
        "learning_rate": 0.5,
        "augment": "none",
        "optimizer": "adam",
        "weight_decay": 0.5,
        "schedule": "constant",
        "early_stopping": 7,
        "clip": 0.5,
        "progressive": 0.5,
    }
    for preset, own in PRESETS.items():
        monkeypatch.setitem(PRESETS, preset, {name: odd[name] for name in own})


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_a_study_file_takes_nothing_from_its_preset(path, imagenet, monkeypatch):
    study = study_file.read_study(path)

    def configs():
        tuned = {"learning_rate": 0.0} if study.tuning else {}
        return [dataclasses.replace(config, **tuned) for _, config in planned(study, imagenet)]

    before = configs()
    odd_presets(monkeypatch)
    assert configs() == before


@pytest.mark.parametrize("name", sorted({study for study, *_ in COMMITTED}))
def test_every_committed_key_follows_from_its_study_file(name, imagenet):
    study = study_file.read_study(ROOT / "experiments" / "studies" / f"{name}.toml")
    cells = {cell.id: config for cell, config in planned(study, imagenet)}
    of_machine = ("data_fingerprint", "threads", *(("learning_rate",) if study.tuning else ()))
    for _, key, config in [row for row in COMMITTED if row[0] == name]:
        assert config["seed"] in study.seeds
        found = {name: config[name] for name in (*of_machine, "seed")}
        assert key in {dataclasses.replace(cell, **found).key for cell in cells.values()}, key
    example = next(config for study_name, _, config in COMMITTED if study_name == name)
    with open(RESULTS / name / "trials.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cell = dataclasses.replace(
                cells[row["cell"]],
                seed=int(row["seed"]),
                learning_rate=float(row["rate"]),
                data_fingerprint=example["data_fingerprint"],
                threads=example["threads"],
            )
            assert cell.key == row["key"], row


@pytest.mark.parametrize("name", setting_fields())
def test_the_default_of_every_setting_is_of_its_type(name):
    default = getattr(RunConfig(), name)
    if default is not None:
        assert values.typed(name, default) == default
    assert name in setting_types()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("epochs", 0, 'Invalid value "0" for epochs. Must be >= 1.'),
        ("epochs", "2.5", 'Invalid value for epochs: "2.5" is not a whole number.'),
        ("epochs", True, 'Invalid value for epochs: "True" is not a whole number.'),
        ("learning_rate", "nan", 'Invalid value for learning_rate: "nan" is not a finite number.'),
        ("progressive", 1.5, 'Invalid value "1.5" for progressive. Must be <= 1.'),
        ("schedule", "cosin", 'Choose from: "cosine", "one-cycle", "constant". Did you mean "cosine"?'),
        ("size", [64], '"[64]" is not WIDTHxHEIGHT'),
        ("fold", "5/5", "There is no fold 5/5"),
        ("model_kwargs", ["width"], '"width" is not KEY=VALUE'),
        ("preset", "dmo", 'Did you mean "demo"?'),
        ("loss", "bcedice", "did you mean 'bce_dice'?"),
        ("workers", -1, "Must be >= 0."),
        ("data_dir", "", "Must be a text."),
        ("epoch", 3, "did you mean 'epochs'?"),
        ("lr", "1e-3", "did you mean 'learning_rate'?"),
        ("bs", 8, "did you mean 'batch_size'?"),
        ("mask_values", [1, 2], "did you mean 'foreground'?"),
    ],
)
def test_a_value_of_a_config_file_is_refused_with_the_message_of_the_flag(name, value, sentence):
    with pytest.raises(InputError) as refused:
        values.typed(name, value)
    assert sentence in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_weights_in_the_home_folder_are_found_from_a_config_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").write_bytes(b"weights")
    text = "data: synthetic\nmodel: resnet_unet\nmodel_kwargs: {pretrained: ~/w.pth}\n"
    (tmp_path / "run.yaml").write_text(text)
    config, machine, _ = resolve(values.read({}, tmp_path / "run.yaml"))
    assert config.model_kwargs["pretrained"] == "file" and machine.weights_file == tmp_path / "w.pth"


@pytest.mark.parametrize(
    ("line", "setting"), [("lr: 1e-3", "learning_rate"), ("img-size: 64x64", "size"), ("num_workers: 2", "workers")]
)
def test_what_other_tools_call_a_setting_is_suggested_in_a_config_file(tmp_path, line, setting):
    (tmp_path / "run.yaml").write_text(line)
    with pytest.raises(InputError, match=rf"in the config file .* \(did you mean '{setting}'\?\)"):
        values.read({}, tmp_path / "run.yaml")


@pytest.mark.parametrize(
    ("precision", "fast", "warned"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_bf16_on_a_cpu_without_it_is_pointed_out(precision, fast, warned, monkeypatch):
    monkeypatch.setattr(resolving, "_bf16_pays", lambda: fast)
    fields = {"data": "synthetic", "device": "cpu", "precision": precision}
    config, _, notices = resolve(ParsedArgs(fields, {}, "demo"))
    assert config.precision == precision and any("slower in bf16" in notice for notice in notices) == warned
