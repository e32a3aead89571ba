"""Every name that can be chosen: models, losses, augmentations, data sets.

An entry is one line: name, target (imported on first use), a summary in English and in Chinese, and the source. The
command line's help, the README's tables and the tests all walk these tables, so adding a model is one new file and one
line here. Wherever a name is accepted, so is your own target: `my_package.nets:MyNet`.

每一个可选的名字都在这里：模型、损失函数、数据增强、数据集。增加一个模型只需要一个新文件和这里的一行。
Only the standard library is imported here.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """Invalid command or input; the message is one sentence that says what to type. Exit code 2."""


class UnknownName(InputError, KeyError):
    """Unknown name; the message suggests the nearest one."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the repr


class OptionError(InputError, TypeError):
    """Option or value that a target does not accept; the message lists its options."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean '...'?)" with the nearest known name; empty where none is near."""
    by_lower_case = {word.lower(): word for word in known}
    parts = sorted(name.lower().replace("-", "_").split("_"))  # dice_bce: a name whose parts stand in another order
    same = [word for lower, word in by_lower_case.items() if sorted(lower.replace("-", "_").split("_")) == parts]
    if same:
        return f" (did you mean '{same[0]}'?)"
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    return f" (did you mean '{by_lower_case[near[0]]}'?)" if near else ""


@dataclass(frozen=True)
class Entry:
    """One choice. `target` is `module:attribute`; `kind` is its noun in messages ("model", "loss", ...)."""

    name: str
    target: str
    summary: str
    summary_zh: str
    source: str
    kind: str = "entry"

    def load(self) -> Callable[..., Any]:
        """Import the target. Raises UnknownName when the module or the attribute is not there."""
        module_name, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            root = (error.name or "").split(".")[0]
            if root != module_name.split(".")[0]:
                raise  # the module is there; something that it imports is not
            raise UnknownName(
                f"The {self.kind} '{self.name}' cannot be imported: there is no module '{error.name}'."
            ) from None
        except AttributeError:
            raise UnknownName(
                f"The module '{module_name}' has no '{attribute}' (for the {self.kind} '{self.name}')."
            ) from None

    def options(self) -> dict[str, inspect.Parameter]:
        """Return the target's options by name, without the arguments that the training loop passes."""
        return dict(_parameters(self.load()))

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise OptionError for an option that the target does not take, or a value of another type than declared."""
        known = self.options()
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return
        takes = f"It takes: {', '.join(known)}." if known else "It takes no options."
        for name, value in options.items():
            if name not in known:
                start = " To start from weights, type --init FILE or KEY." if name == "pretrained" else ""
                raise OptionError(
                    f"The {self.kind} '{self.name}' has no option '{name}'{did_you_mean(name, known)}. {takes}{start}"
                )
            wanted = known[name].annotation
            if not _accepts(wanted, value):
                raise OptionError(
                    f"The option {name}={value} of the {self.kind} '{self.name}' should be {_describe(wanted)}."
                )

    def without_pretrained(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` for a model without pretrained weights; unchanged where it cannot be built without."""
        known = self.options().get("pretrained")
        accepted = [value for value in (False, None) if known is not None and _accepts(known.annotation, value)]
        return {**options, "pretrained": accepted[0]} if accepted else dict(options)

    def build(self, **options: Any) -> Any:
        """Call the target with `options`. Raises OptionError for what it does not take or refuses with ValueError."""
        self.check(options)
        known = self.options().items()
        needed = [name for name, p in known if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if missing := [name for name in needed if name not in options]:
            raise OptionError(
                f"The {self.kind} '{self.name}' needs a value for {', '.join(missing)}, such as {missing[0]}=1."
            )
        try:
            return self._make(options)
        except InputError:  # a sentence that needs no more words
            raise
        except ValueError as error:
            raise OptionError(f"The {self.kind} '{self.name}' refuses {_typed(options)}: {error}") from error

    def _make(self, options: Mapping[str, Any]) -> Any:
        return self.load()(**options)


@dataclass(frozen=True)
class LossEntry(Entry):
    """A loss, a function of (logits, mask, **options): building it binds the options."""

    def options(self) -> dict[str, inspect.Parameter]:
        parameters = _parameters(self.load())
        called_later = isinstance(self.load(), type)  # a class takes (logits, mask) when its object is called
        return dict(parameters if called_later else parameters[2:])

    def _make(self, options: Mapping[str, Any]) -> Callable[..., Any]:
        """Return a callable `(logits, mask) -> scalar`; a class, such as an nn.Module, is instantiated."""
        target = self.load()
        return target(**options) if isinstance(target, type) else functools.partial(target, **options)


@dataclass(frozen=True)
class ModelEntry(Entry):
    """A model; a user's own may return its logits in a dict, as torchvision's segmentation models do."""

    def _make(self, options: Mapping[str, Any]) -> Any:
        made = self.load()(**options)
        if self.name == self.target and hasattr(made, "register_forward_hook"):
            made.register_forward_hook(_logits_of)
        return made


def _logits_of(module: Any, inputs: Any, output: Any) -> Any:
    """Unpack logits from a dict, its entry `out` or the only one: a forward hook. Raises ValueError for other dicts."""
    if not isinstance(output, Mapping):
        return output
    if "out" in output:
        return output["out"]
    if len(output) == 1:
        return next(iter(output.values()))
    names = ", ".join(map(str, output))
    raise ValueError(f"it returns a dict with {names}; it should return logits, alone or as the entry 'out'.")


def _advice(kind: str, name: str) -> str:
    """What else may have been meant by an unknown name."""
    if kind == "data set" and os.path.isdir(name):
        own = "carvana" if os.path.isdir(os.path.join(name, "train_masks")) else "folder"
        what = "Carvana's images" if own == "carvana" else "a folder of your own pairs"
        return f" For {what}, type --data {own} --data-dir {shlex.quote(name)}."
    if kind == "model" and name.lower().replace("-", "").replace("_", "").startswith("nnunet"):
        return " nnU-Net is not among them: run.py judge compares its scores with those of others."
    return ""


class Table(Mapping[str, Entry]):
    """The entries of one kind by name, in display order; `module:name` stands for a user's own target."""

    def __init__(self, kind: str, *rows: tuple[str, str, str, str, str], entry: type[Entry] = Entry) -> None:
        self.kind, self._entry = kind, entry
        self._entries = {row[0]: entry(*row, kind=kind) for row in rows}

    def __getitem__(self, name: str) -> Entry:
        if name in self._entries:
            return self._entries[name]
        if ":" in name and all(part.isidentifier() for part in name.replace(":", ".").split(".")):
            return self._entry(name, name, f"your own {self.kind}", "自己的实现", name, kind=self.kind)
        advice = _advice(self.kind, name)
        near = "" if advice else did_you_mean(name, self._entries)
        raise UnknownName(f"Unknown {self.kind} '{name}'{near}. Choose from: {', '.join(self._entries)}.{advice}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _parameters(target: Callable[..., Any]) -> list[tuple[str, inspect.Parameter]]:
    try:
        signature = inspect.signature(target, eval_str=True)
    except Exception:  # an annotation that is no type here, such as one imported for type checkers: it accepts anything
        signature = inspect.signature(target)
    return list(signature.parameters.items())


def _typed(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items()) or "its defaults"


def _accepts(annotation: Any, value: Any) -> bool:
    """Whether a plain value fits an annotation; annotations other than plain types accept everything."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return value in typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(_accepts(part, value) for part in typing.get_args(annotation))
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (bool, str):
        return isinstance(value, annotation)
    if annotation is Path:
        return isinstance(value, (str, Path))
    if annotation is types.NoneType or annotation is None:
        return value is None
    return True


def _describe(annotation: Any) -> str:
    """Describe an annotation for an error message."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(annotation)))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(annotation))
    plain = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a word",
        Path: "a file",
        types.NoneType: "none",
    }
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


MODELS = Table(
    "model",
    ("unet", "models.unet:unet",
     "U-Net from scratch: BatchNorm, padded convolutions, four halvings",
     "从零实现的 U-Net：批归一化、带填充的卷积、四次下采样",
     "Ronneberger et al. 2015, arXiv:1505.04597"),
    ("attention_unet", "models.attention_unet:attention_unet",
     "the same U-Net with additive attention gates on its skip connections", "同样的 U-Net，跳跃连接上带有加性注意力门",
     "Oktay et al. 2018, arXiv:1804.03999"),
    ("resnet_unet", "models.resnet_unet:resnet_unet",
     "U-Net on a ResNet encoder, ImageNet weights by default",
     "以 ResNet 为编码器的 U-Net，默认使用 ImageNet 预训练权重",
     "He et al. 2016, arXiv:1512.03385; segmentation-models-pytorch"),
    ("smp", "models.zoo:build",
     "any architecture of segmentation-models-pytorch on any encoder",
     "segmentation-models-pytorch 的任意架构，配任意编码器",
     "Iakubovskii 2019, github.com/qubvel-org/segmentation_models.pytorch"),
    entry=ModelEntry,
)  # fmt: skip

LOSSES = Table(
    "loss",
    ("bce", "experiments.training.losses:bce_loss",
     "binary cross-entropy, pixel by pixel", "逐像素的二元交叉熵",
     "Ronneberger et al. 2015, arXiv:1505.04597"),
    ("dice", "experiments.training.losses:dice_loss",
     "1 - soft Dice of each image (or, per=batch, of the batch)", "1 - 软 Dice，逐图像计算（per=batch 时按整批计算）",
     "Milletari et al. 2016, arXiv:1606.04797"),
    ("focal", "experiments.training.losses:focal_loss",
     "cross-entropy that down-weights easy pixels", "降低易分像素权重的交叉熵",
     "Lin et al. 2017, arXiv:1708.02002"),
    ("bce_dice", "experiments.training.losses:bce_dice_loss",
     "BCE plus weighted Dice", "BCE 与加权 Dice 之和",
     "Isensee et al. 2021, doi:10.1038/s41592-020-01008-z"),
    ("dice_focal", "experiments.training.losses:dice_focal_loss",
     "Dice plus weighted focal loss", "Dice 与加权 focal loss 之和",
     "Zhu et al. 2019, doi:10.1002/mp.13300"),
    ("tversky", "experiments.training.losses:tversky_loss",
     "Dice with separate weights for false positives and false negatives", "对假阳性和假阴性分别加权的 Dice",
     "Salehi et al. 2017, arXiv:1706.05721"),
    ("lovasz", "experiments.training.losses:lovasz_loss",
     "1 - IoU of the thresholded prediction, made convex", "1 - IoU（对二值化预测）的凸代理",
     "Berman et al. 2018, arXiv:1705.08790"),
    entry=LossEntry,
)  # fmt: skip

AUGMENTATIONS = Table(
    "augmentation",
    ("none", "experiments.data.augment:none",
     "no augmentation", "不做增强",
     "-"),
    ("flip", "experiments.data.augment:flip",
     "horizontal flip with probability 0.5", "以 0.5 的概率水平翻转",
     "Krizhevsky et al. 2012"),
    ("geometric", "experiments.data.augment:geometric",
     "flip, shift, scale and rotate", "翻转、平移、缩放、旋转",
     "Buslaev et al. 2020, doi:10.3390/info11020125"),
    ("photometric", "experiments.data.augment:photometric",
     "flip, brightness, contrast, colour, gamma", "翻转、亮度、对比度、颜色、伽马",
     "Buslaev et al. 2020, doi:10.3390/info11020125"),
    ("strong", "experiments.data.augment:strong",
     "geometric and photometric with noise, blur and holes", "几何与光度增强，再加噪声、模糊和遮挡",
     "Buslaev et al. 2020, doi:10.3390/info11020125"),
)  # fmt: skip

DATASETS = Table(
    "data set",
    ("carvana", "experiments.data.carvana:build",
     "Kaggle's Carvana cars: 318 cars, 16 views each", "Kaggle Carvana 汽车：318 辆车，每辆 16 个视角",
     "kaggle.com/c/carvana-image-masking-challenge"),
    ("folder", "experiments.data.folder:build",
     "your own pairs: images/ and masks/", "你自己的数据：images/ 和 masks/",
     "-"),
    ("nuclei", "experiments.data.nuclei:build",
     "nuclei of the 2018 Data Science Bowl (BBBC038v1, CC0): 670 microscopy images",
     "2018 年 Data Science Bowl 的细胞核（BBBC038v1，CC0）：670 张显微图像",
     "Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7; bbbc.broadinstitute.org/BBBC038"),
    ("oxford_pet", "experiments.data.oxford_pet:build",
     "Oxford-IIIT pets (CC BY-SA 4.0): cats and dogs of 37 breeds against the rest",
     "Oxford-IIIT 宠物（CC BY-SA 4.0）：37 个品种的猫和狗，与背景区分",
     "Parkhi et al. 2012, doi:10.1109/CVPR.2012.6248092; robots.ox.ac.uk/~vgg/data/pets"),
    ("synthetic", "experiments.data.synthetic.cars:build",
     "synthetic cars, rendered on demand in Carvana's layout", "按需生成的合成汽车，采用 Carvana 的目录结构",
     "this project"),
)  # fmt: skip
