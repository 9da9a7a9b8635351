"""What a healthy GPU of each model has: data in models.toml, looked up by NVML's product name."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model. nvlinks: links up on an NVSwitch board, 0 where no number holds everywhere.

    pcie: [generation, lanes]. hang_watts: power below which a GPU that claims to be busy computes nothing.
    """

    match: str
    source: str
    pcie: tuple[int, int]
    hang_watts: Annotated[int, msgspec.Meta(gt=0)]
    nvlinks: int = 0


class _Models(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: list[Model]


@cache
def models() -> tuple[Model, ...]:
    """Every model that muster knows, the narrower name first."""
    text = files("checks.gpu").joinpath("models.toml").read_text(encoding="utf-8")
    return tuple(msgspec.convert(tomllib.loads(text), _Models).model)


@cache
def model(name: str) -> Model | None:
    """The model of that product name, or None for one that muster does not know."""
    return next((model for model in models() if model.match in name), None)
