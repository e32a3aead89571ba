"""Resolve parsed settings to a complete RunConfig: preset, model options, device and precision."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from analysis.records.files import sha256_of
from experiments.config.schema import DATA_DIRS, PRESETS, RunConfig, RuntimeConfig, without_password
from experiments.config.values import ParsedArgs, check_tracking_uri
from experiments.runtime.environment import processor
from experiments.runtime.progress import count
from registry import DATASETS, LOSSES, MODELS, InputError

SMALLEST_HALVED = 64  # pixels of the shorter side: half of it is the least that the networks take


def resolve(args: ParsedArgs) -> tuple[RunConfig, RuntimeConfig, list[str]]:
    """The RunConfig and Machine (without the data's fingerprint), and sentences about what was decided for the user."""
    preset, notices = choose_preset(args)
    values = {**PRESETS[preset], **args.fields}
    width = values.pop("width")
    if values.get("progressive") and "progressive" not in args.fields and (reason := _no_half_size(values)):
        del values["progressive"]
        notices.append(f"All epochs are at full size, unlike in preset {preset}: {reason}.")
    entry = MODELS[values.get("model", RunConfig.model)]
    options = dict(values.get("model_kwargs", {}))
    if "width" in entry.options():
        options = {"width": width, **options}
    entry.check(options)
    _try_loss(values.get("loss", RunConfig.loss), values.get("loss_kwargs", {}), values["size"])
    if values.get("group_pattern") is not None and "group_pattern" not in DATASETS[values["data"]].options():
        raise InputError(f"--group-pattern is for --data folder; {values['data']} knows its groups.")
    if args.machine.get("mask_pattern") is not None and "mask_pattern" not in DATASETS[values["data"]].options():
        raise InputError(f"--mask-pattern is for --data folder; {values['data']} knows its masks.")
    if values.get("accumulate", 1) > values["batch_size"]:
        raise InputError(f"--accumulate {values['accumulate']} is more than the batch size, {values['batch_size']}.")
    if values.get("progressive") and min(values["size"]) < SMALLEST_HALVED:
        raise InputError(
            "--progressive begins at half of --size, and no network takes less than 32x32: give at least 64x64."
        )
    machine = {"data_dir": DATA_DIRS.get(values["data"], Path("data")), **args.machine}
    if "tracking_uri" not in machine and (uri := os.environ.get("MLFLOW_TRACKING_URI")):
        machine["tracking_uri"] = check_tracking_uri(uri, "MLFLOW_TRACKING_URI")
        notices.append(f"MLflow: {without_password(uri)}, by MLFLOW_TRACKING_URI.")
    own = entry.name == entry.target
    options, weights, weights_file = _weights(options, own=True) if own else _weights(options)
    values["device"] = _device(values.get("device", "auto"), notices)
    if values["device"] == "cuda" and values.get("compile") == "graphs" and values.get("accumulate", 1) > 1:
        raise InputError(  # the second replay of a graph overwrites the gradients of the first
            "--compile graphs cannot add up the gradients of --accumulate: type --compile default, or leave one out."
        )
    values["precision"] = _precision(values.get("precision", "auto"), values["device"], notices)
    threads = _threads() if values["device"] == "cpu" else 0
    if machine.get("workers") is None:
        machine["workers"] = 0 if values["device"] == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 1))
    config = RunConfig(**{**values, "model_kwargs": options, "weights": weights, "threads": threads})
    notices.append(f"Preset {preset} on {config.data} data, {config.device} in {config.precision}.")
    machine["output_dir"] = Path(machine.get("output_dir", "outputs")).absolute()
    return config, RuntimeConfig(**{**machine, "weights_file": weights_file}), notices


def _no_half_size(values: dict[str, Any]) -> str:
    """Why a preset's epochs at half the size are left out; empty where they are not."""
    if min(values["size"]) < SMALLEST_HALVED:
        return "no network takes half of the input size"
    return "early stopping could end the run before them" if values.get("early_stopping") else ""


def choose_preset(args: ParsedArgs) -> tuple[str, list[str]]:
    """The given preset, or the one that fits the available data and the machine."""
    if args.preset:
        return args.preset, []
    data = args.fields.get("data")
    if data == "synthetic":
        return "demo", []
    if data is None and "data_dir" not in args.machine and not _has_images(DATA_DIRS["carvana"]):
        bar = "*" * 100
        text = (
            f"No Carvana images under {DATA_DIRS['carvana']}: this run uses SYNTHETIC CARS (preset demo).\n"
            "Its scores say nothing about real images. For those, type: python run.py data download carvana,\n"
            "or name their folder with --data-dir."
        )
        return "demo", [f"{bar}\n{text}\n{bar}"]
    import torch

    return ("carvana-fast" if torch.cuda.is_available() else "carvana-cpu"), []


def _has_images(folder: Path) -> bool:
    return (folder / "train").is_dir() and (folder / "train_masks").is_dir()


def _try_loss(name: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    """One call on a pair of pixels: a loss refuses values of its options when it is called, which is late otherwise.

    Where that fails, one on an image of the run's `size` (width, height): a loss with windows, such as SSIM, refuses
    smaller ones.
    """
    import torch

    loss = LOSSES[name].build(**options)
    module = getattr(loss, "func", loss)  # an object has its options bound
    if isinstance(module, torch.nn.Module) and any(weight.requires_grad for weight in module.parameters()):
        raise InputError(
            f"--loss {name} has trainable parameters, which nothing would train: only the model's are. "
            "Make them constants (requires_grad_(False)), or put them into the model."
        )
    score = None
    with contextlib.suppress(Exception):  # of the user's own code: any
        score = loss(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    try:
        if score is None:
            score = loss(torch.zeros(1, 1, *size[::-1]), torch.zeros(1, 1, *size[::-1]))
    except ValueError as error:
        raise InputError(f"--loss-kwargs: {error}") from None
    except TypeError as error:
        raise InputError(
            f"--loss {name} cannot be called with logits and mask ({' '.join(str(error).split())}): "
            "name a function of (logits, mask), or a class whose objects are called so."
        ) from None
    except Exception as error:
        raise InputError(
            f"--loss {name} fails on one image of {size[0]}x{size[1]} ({type(error).__name__}: "
            f"{' '.join(str(error).split())}). Correct it, or choose another --loss or --size."
        ) from None
    if not isinstance(score, torch.Tensor) or score.shape != ():
        shape = tuple(score.shape) if isinstance(score, torch.Tensor) else type(score).__name__
        raise InputError(
            f"--loss {name} returns {shape} for a batch; it should return one number, a tensor of shape ()."
        )


def _device(name: str, notices: list[str]) -> str:
    import torch

    device = find_device(name)
    if name == "auto" and device == "cpu":
        threads = torch.get_num_threads()
        notices.append(f"No GPU found: training on the CPU ({processor()}) with {count(threads, 'thread')}.")
    return device


def find_device(name: str) -> str:
    """The device of that name, or for "auto" the first that is available. Raises InputError where it is not."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, here in available.items() if here)
    if not available[name]:
        raise InputError(f"--device {name} is not available on this machine. Type --device cpu, or leave it out.")
    return name


def _precision(name: str, device: str, notices: list[str]) -> str:
    """bf16 where the hardware multiplies it, fp16 with scaling on older GPUs, else fp32."""
    import torch

    if name == "fp16" and device != "cuda":
        raise InputError(f"--precision fp16 needs a CUDA GPU; on {device} type --precision fp32 or bf16.")
    if name == "bf16" and device == "cpu" and not _bf16_pays():
        notices.append("This CPU is two to ten times slower in bf16 than in fp32 (--precision).")
    if name != "auto":
        return name
    if device == "cuda":
        return "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "fp16"
    return "bf16" if device == "cpu" and _bf16_pays() else "fp32"


def _bf16_pays() -> bool:
    """Whether this CPU multiplies bf16 faster than fp32. A rule, not a measurement: the precision is part of the key.

    With AMX it does, and so do AMD's AVX-512 chips (819 against 186 GFLOP/s on two cores); Intel's without AMX have the
    same instructions at half their fp32 rate (167 against 332 GFLOP/s on two cores of a 2.3 GHz Xeon).
    """
    import torch

    def has(feature: str) -> bool:
        return bool(getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)())

    return has("amx_tile") or (has("avx512_bf16") and "Intel" not in processor())


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _weights(options: dict[str, Any], own: bool = False) -> tuple[dict[str, Any], str, Path | None]:
    """A file given as `pretrained=PATH`: its bytes, not its path, belong to the run's identity.

    A model of one's `own` may take words that are no files.
    """
    value = options.get("pretrained")
    if not isinstance(value, (str, Path)) or (own and not Path(value).expanduser().is_file()):
        return options, "", None
    path = Path(value).expanduser()
    if not path.is_file():
        raise InputError(
            f"There is no weights file {path}. Type pretrained=true, pretrained=false, or the path of a file."
        )
    return {**options, "pretrained": "file"}, sha256_of(path), path.absolute()
