"""Grids and search spaces, as written on the command line and as Optuna takes them."""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from rnnx import config as configs
from rnnx.errors import UserError

Overrides = dict[str, Any]  # config fields and a trial's values for them


def grid(text: str) -> list[Overrides]:
    """`depth=1,2;integration=additive,mi` to all four combinations, the last field fastest.

    Raises:
      UserError: on an unknown field, a value it can't have, or one named twice.
    """
    axes = {name: _values(name, values) for name, values in _fields(text)}
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def search(text: str) -> dict[str, BaseDistribution]:
    """`learning_rate=log:1e-4..1e-2;drop_h=0..0.5;cell=rhn,lstm` to Optuna's distributions.

    `a..b` is uniform from a to b, `log:a..b` uniform in the logarithm; whole numbers for fields
    that hold them; a list is a choice.

    Raises:
      UserError: on an unknown field, a value it can't have, or an empty range.
    """
    return {name: _distribution(name, values) for name, values in _fields(text)}


def spread(search: dict[str, BaseDistribution], count: int) -> list[Overrides]:
    """So many points of a search space, spread evenly by Halton's sequence.

    Few random points lie unevenly. Floats are rounded to three digits; more points begin with the
    same ones.
    """
    from scipy.stats import qmc  # a second to import

    drawn = qmc.Halton(len(search), rng=0).random(count)
    return [
        {name: _at(search[name], share) for name, share in zip(search, row, strict=True)}
        for row in drawn
    ]


def _at(distribution: BaseDistribution, share: float) -> Any:
    """The value at a share in [0, 1) of a distribution's range, as it is measured there."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    low, high = float(distribution.low), float(distribution.high)
    if isinstance(distribution, IntDistribution):
        high += 1
    value = low * (high / low) ** share if distribution.log else low + share * (high - low)
    return int(value) if isinstance(distribution, IntDistribution) else float(f"{value:.3g}")


def draw(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    """Lets the sampler propose a value, or recalls the one it proposed before."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    else:
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def repeated(points: Sequence[Overrides], seeds: Sequence[int]) -> list[Overrides]:
    """Every point with every seed; all points with the first seed come first."""
    return [{**point, "seed": seed} for seed in seeds for point in points]


def alike(a: Overrides, b: Overrides) -> bool:
    """Whether two points share their compiled program."""
    apart = {name for name in a.keys() | b.keys() if a.get(name) != b.get(name)}
    return apart <= set(configs.SHARED)


def checked(point: Overrides) -> Overrides:
    """The point with values of their fields' types. Raises UserError for bad ones."""
    return {name: configs.converted(name, value) for name, value in point.items()}


def flag(name: str, value: Any) -> str:
    """The command line flag that sets a config field."""
    return f"--config.{name}={value}"


def label(point: Overrides) -> str:
    """`depth=4,integration=mi`, for people."""
    return ",".join(f"{name}={configs.show(value)}" for name, value in point.items())


def _fields(text: str) -> list[tuple[str, str]]:
    pairs = []
    for part in filter(None, map(str.strip, text.split(";"))):
        name, equals, values = (s.strip() for s in part.partition("="))
        if not equals or not values:
            raise UserError(f"{part!r} is not FIELD=VALUES")
        if name not in configs.FIELDS:
            raise UserError(
                f"unknown config field {name!r}; {configs.nearest(name, configs.FIELDS)}"
            )
        if name in dict(pairs):
            raise UserError(f"{name} is given twice")
        pairs.append((name, values))
    if not pairs:
        raise UserError("there is nothing to sweep: name FIELD=VALUES;FIELD=VALUES")
    return pairs


def _values(name: str, text: str) -> list[Any]:
    """The values of a list; commas within parentheses do not separate them."""
    values = [_value(name, part) for part in re.split(r",(?![^(]*\))", text)]
    if len(set(values)) < len(values):
        raise UserError(f"{name}={text} names a value twice")
    return values


def _value(name: str, text: str) -> Any:
    text, kind = text.strip(), type(configs.FIELDS[name].default)
    try:
        if kind is bool:
            value: Any = {"true": True, "false": False}[text.lower()]
        elif kind is tuple:
            value = tuple(float(part) for part in text.strip("()").split(","))
        else:
            value = kind(text)
    except (ValueError, KeyError):
        raise UserError(f"{name}={text!r} is not {_NAMES[kind]}") from None
    return configs.converted(name, value)


_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list in parentheses, like (1,.5,.5)",
}


def _distribution(name: str, text: str) -> BaseDistribution:
    match = re.fullmatch(r"(log:)?(.+?)\.\.(.+)", text)
    kind = type(configs.FIELDS[name].default)
    if not match or kind not in (int, float):
        if match:
            raise UserError(f"{name} holds no number: name its values, separated by commas")
        if kind is tuple:
            raise UserError(f"{name} can't be searched: give it to --grid")
        return CategoricalDistribution(_values(name, text))
    low, high = (_value(name, end) for end in match.groups()[1:])
    log = bool(match[1])
    if not low < high or not math.isfinite(high):
        raise UserError(f"{name}={text}: the range is empty")
    if log and low <= 0:
        raise UserError(f"{name}={text}: a logarithmic range starts above 0")
    return (IntDistribution if kind is int else FloatDistribution)(low, high, log=log)
