"""Types of settings: one rule for a flag, a line of a config file and a line of a study file.

A type is cyclopts' `Annotated[type, Parameter(...)]` (or a `Literal`): how text is converted, what is refused, and what
`--help` shows. Cyclopts' own integers are too lenient here (it reads 2.5 as 2), so numbers have a strict converter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import CoercionError, Parameter, Token
from cyclopts.validators import Number

NONZERO = "nonzero"  # as the foreground of masks: any value but 0
DIGITS = "[0-9]{1,18}"  # more than any setting needs, and fewer than Python refuses to convert


def _integer(_: Any, tokens: Sequence[Token]) -> int:
    value: Any = tokens[0].value
    if isinstance(value, bool) or not re.fullmatch(rf"[+-]?{DIGITS}", str(value).strip()):
        raise ValueError(f'"{value}" is not a whole number.')
    return int(value)


def _number(_: Any, tokens: Sequence[Token]) -> float:
    value: Any = tokens[0].value
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f'"{value}" is not a finite number.')
    return number


def _two_integers(value: Any, separator: str) -> tuple[int, int] | None:
    words = value if isinstance(value, (list, tuple)) else re.split(separator, str(value).strip())
    if len(words) != 2 or not all(re.fullmatch(DIGITS, str(word).strip()) for word in words):
        return None
    return int(words[0]), int(words[1])


def _size(_: Any, tokens: Sequence[Token]) -> tuple[int, int]:
    size = _two_integers(tokens[0].value, "[x×X]")
    if size is None:
        raise ValueError(f'"{tokens[0].value}" is not WIDTHxHEIGHT in pixels, such as 192x128.')
    if min(size) < 32:
        raise ValueError(f"{size[0]}x{size[1]} is too small: the networks halve it four times; give at least 32x32.")
    return size


def _fold(_: Any, tokens: Sequence[Token]) -> tuple[int, int]:
    fold = _two_integers(tokens[0].value, "/")
    if fold is None:
        raise ValueError(f'"{tokens[0].value}" is not K/N, such as 0/5 for the first of five folds.')
    if fold[1] < 2 or fold[0] >= fold[1]:
        raise ValueError(
            f"There is no fold {fold[0]}/{fold[1]}: K is counted from 0 and less than N, and N is at least 2."
        )
    return fold


def _options(_: Any, tokens: Sequence[Token]) -> dict[str, Any]:
    value: Any = tokens[0].value
    if isinstance(value, Mapping):  # a config file's table, or flags that are converted already
        return {str(name): option for name, option in value.items()}
    words = value if isinstance(value, (list, tuple)) else [token.value for token in tokens]
    options = {}
    for word in words:
        name, equals, text = str(word).partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f'"{word}" is not KEY=VALUE, such as width=16.')
        options[name] = _literal(text)
    return options


def _literal(text: str) -> Any:
    constants = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in constants:
        return constants[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    parts = [_literal(part) for part in text.split(",")] if "," in text else []
    numbers = all(isinstance(part, (int, float)) and not isinstance(part, bool) for part in parts)
    return parts if parts and numbers else text  # 256,128,64 is a list of numbers; a path with a comma is a path


def _seeds(_: Any, tokens: Sequence[Token]) -> list[int]:
    seeds: list[int] = []
    for token in tokens:
        match = re.fullmatch(rf"({DIGITS})(?:-({DIGITS}))?", token.value.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + 10_000:
            raise ValueError(f'"{token.value}" is neither a whole number nor a range, such as 0-4.')
        seeds += range(first, last + 1)
    return seeds


def _seeds_or_counts(_: Any, tokens: Sequence[Token]) -> list[int] | str:
    (first, *others) = tokens
    return first.value if not others and ".." in first.value else _seeds(_, tokens)


def _rate_range(_: Any, tokens: Sequence[Token]) -> tuple[float, float]:
    low, colon, high = tokens[0].value.partition(":")
    if not colon:
        raise ValueError(f'"{tokens[0].value}" is not LOW:HIGH, such as 3e-4:3e-2.')
    return _number(None, [Token(value=low)]), _number(None, [Token(value=high)])


def _gpus(_: Any, tokens: Sequence[Token]) -> float:
    share = _number(None, tokens)
    if not 0 < share < 1e6 or (share > 1 and share != int(share)):
        raise ValueError(f'"{tokens[0].value}" is neither a fraction of one GPU, such as 0.25, nor a whole number.')
    return share


def _foreground(_: Any, tokens: Sequence[Token]) -> tuple[int | str, ...]:
    value: Any = tokens[0].value
    listed = list(value) if isinstance(value, (list, tuple)) else [value] if isinstance(value, int) else None
    words = [str(word).strip() for word in (listed if listed is not None else [token.value for token in tokens])]
    values: list[int | str] = []
    for word in words:
        if re.fullmatch("[0-9]{1,10}", word):
            values.append(int(word))
        elif word == NONZERO:
            values.append(NONZERO)
        elif (colour := re.fullmatch("([0-9]{1,3}),([0-9]{1,3}),([0-9]{1,3})", word)) and max(
            map(int, colour.groups())
        ) < 256:
            values.append(",".join(str(int(level)) for level in colour.groups()))
        else:
            raise ValueError(
                f'"{word}" is neither a value of a mask, such as 1, nor a colour R,G,B, such as 255,0,0, nor {NONZERO}.'
            )
    if NONZERO in values and len(set(values)) > 1:
        raise ValueError(f"{NONZERO} means any value but 0: name no others beside it.")
    return tuple(sorted(set(values), key=lambda value: (isinstance(value, str), value)))


def _intensity(_: Any, tokens: Sequence[Token]) -> tuple[float, float]:
    value: Any = tokens[0].value
    words = list(value) if isinstance(value, (list, tuple)) else str(value).split(":")
    if len(words) != 2:
        raise ValueError(f'"{value}" is not LOW:HIGH, such as -1000:3000.')
    low, high = (_number(None, [Token(value=word)]) for word in words)
    if not low < high:
        raise ValueError(f'"{value}" is no range: LOW, which becomes black, is less than HIGH, such as -1000:3000.')
    return low, high


Count = Annotated[int, Parameter(converter=_integer, validator=Number(gte=1))]
CountOrZero = Annotated[int, Parameter(converter=_integer, validator=Number(gte=0))]
Port = Annotated[int, Parameter(converter=_integer, validator=Number(gte=1, lte=65535))]
Positive = Annotated[float, Parameter(converter=_number, validator=Number(gt=0))]
NonNegative = Annotated[float, Parameter(converter=_number, validator=Number(gte=0))]
Share = Annotated[float, Parameter(converter=_number, validator=Number(gte=0, lte=1))]
Probability = Annotated[float, Parameter(converter=_number, validator=Number(gt=0, lt=1))]
Size = Annotated[tuple[int, int], Parameter(converter=_size, n_tokens=1, negative=(), metavar="WIDTHxHEIGHT")]
Fold = Annotated[tuple[int, int], Parameter(converter=_fold, n_tokens=1, negative=(), metavar="K/N")]
Options = Annotated[
    Mapping[str, Any],
    Parameter(
        converter=_options, n_tokens=-1, accepts_keys=False, consume_multiple=True, negative=(), metavar="KEY=VALUE..."
    ),
]
Seeds = Annotated[
    list[int], Parameter(converter=_seeds, n_tokens=-1, consume_multiple=True, negative=(), metavar="SEED...")
]
SeedsOrCounts = Annotated[
    list[int] | str,
    Parameter(converter=_seeds_or_counts, n_tokens=-1, consume_multiple=True, negative=(), metavar="SEED..."),
]
Foreground = Annotated[
    tuple[int | str, ...],
    Parameter(converter=_foreground, n_tokens=-1, consume_multiple=True, negative=(), metavar="VALUE..."),
]
Intensity = Annotated[
    tuple[float, float],
    Parameter(converter=_intensity, n_tokens=1, negative=(), metavar="LOW:HIGH", allow_leading_hyphen=True),
]
RateRange = Annotated[
    tuple[float, float], Parameter(converter=_rate_range, n_tokens=1, negative=(), metavar="LOW:HIGH")
]
Gpus = Annotated[float, Parameter(converter=_gpus)]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
Device = Literal["auto", "cuda", "mps", "cpu"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["cosine", "one-cycle", "constant"]
Compile = Literal["off", "default", "graphs"]
TrainDraw = Literal["first", "seed"]
MaskChannel = Literal["auto", "colour", "alpha"]  # see data/masks.py
MaskExif = Literal["own", "image"]
SplitBy = Literal["car", "image", "siblings", "strangers"]  # see data/splits.py


def without_none(hint: Any) -> Any:
    """`hint` without its `| None`."""
    if get_origin(hint) is Union or type(hint).__name__ == "UnionType":
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def convert(hint: Any, value: Any, name: str) -> Any:
    """Convert a value as the flag of this type would. Raises ValueError with cyclopts' sentence, which names `name`."""
    token = Token(keyword=name, value=value)
    if get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            token = Token(keyword=name, value=str(value))
            raise ValueError(str(CoercionError(token=token, target_type=hint, verbose=False)))
        return value
    if get_origin(hint) is not Annotated:
        return str(value)
    (parameter,) = hint.__metadata__
    try:
        converted = parameter.converter(hint.__origin__, [token])
    except ValueError as error:
        raise ValueError(f"Invalid value for {name}: {error}") from None
    for validator in parameter.validator:
        try:
            validator(hint.__origin__, converted)
        except ValueError as error:
            raise ValueError(f'Invalid value "{value}" for {name}. {error}') from None
    return converted
