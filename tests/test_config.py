"""Fields and their ranges; every config file is a notebook entry that trains."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, call_module
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx import parameters, tasks
from rnnx.cells import Cell
from rnnx.errors import UserError


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("depth", 0, "depth=0 must be at least 1"),
        ("hidden_size", -5, "hidden_size=-5 must be at least 1"),
        ("drop_h", 1.0, "drop_h=1.0 must be below 1"),
        ("drop_x", -0.1, "drop_x=-0.1 must be at least 0"),
        ("learning_rate", float("nan"), "not a finite number"),
        ("cell", "lsmt", "did you mean lstm"),
        ("integration", "mul", "is not one of additive, mi_simple, mi"),
        ("mi_init", (1.0, 2.0), "three numbers"),
        ("mi_init", ("a", 1.0, 2.0), "mi_init must be float"),
        ("mi_init", (1.0, float("inf"), 2.0), "not a finite number"),
        ("seed", 2**32, "must be below"),
        ("batch_size", 0, "batch_size=0"),
        ("seed", -1, "seed=-1"),
        ("tied", 1, "tied must be bool"),
    ],
)
def test_impossible_values_are_refused(name, value, message) -> None:
    config = configs.default()
    with config.ignore_type():
        config[name] = value
    with pytest.raises(UserError, match=re.escape(message)):
        configs.validate(config)


def test_fields_that_contradict_each_other_are_refused() -> None:
    config = configs.default()
    config.update(cell="lstm", depth=3)
    with pytest.raises(UserError, match="lstm has no transition depth"):
        configs.validate(config)
    config.update(cell="mingru", depth=1, integration="mi")
    with pytest.raises(UserError, match=r"mingru has no product of the state.* not mi"):
        configs.validate(config)
    config.update(cell="lstm", tied=True, embed_size=7)
    with pytest.raises(UserError, match="tied weights need embed_size"):
        tasks.of(config).check(config)
    config = configs.default()
    config.hiden_size = 3
    with pytest.raises(UserError, match="did you mean hidden_size"):
        configs.validate(config)


def test_config_json_round_trip_and_refusals() -> None:
    config = configs.default()
    config.update(depth=7, mi_init=(2.0, 0.5, 0.5))
    again = configs.from_json(json.loads(json.dumps(configs.to_json(config))), "config.json")
    assert again.to_dict() == config.to_dict()
    for fields, message in [
        ({}, "format None"),
        ({"format": 99}, "format 99"),
        ({"format": 1, "dept": 3}, "did you mean depth"),
        (configs.to_json(config) | {"depth": "7"}, "depth must be int"),
    ]:
        with pytest.raises(UserError, match=message):
            configs.from_json(fields, "config.json")


def test_a_field_younger_than_the_file_gets_its_default() -> None:
    fields = configs.to_json(configs.default())
    del fields["remat"]
    assert configs.from_json(fields, "config.json").remat == 0


def config_files() -> list[Path]:
    return sorted((ROOT / "configs").glob("*.py"))


NAMED = {"ucr": "ECG200", "own": "forecast"}  # what a file must be told first


def argument(path: Path, variant: str) -> str:
    """What stands after the colon of `--config=FILE:`."""
    return f"{NAMED[path.stem]},{variant}" if path.stem in NAMED else variant


def load(path: Path, variant: str = "") -> ConfigDict:
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument(path, variant))


def named_variants(path: Path) -> list[str]:
    """The variants of a file: its functions that take a config, by reading it."""
    return re.findall(r"^def ([a-z]\w*)\(config: ConfigDict\)", path.read_text(), flags=re.M)


ALL = [(path, v) for path in config_files() for v in ["", *named_variants(path)]]


def tiny_forms() -> list:
    """All variants; those of a cell that has come before are long."""
    cells, forms = set(), []
    for path, variant in ALL:
        cell = load(path, variant).cell
        forms.append(pytest.param(path, variant, marks=[pytest.mark.long] * (cell in cells)))
        cells.add(cell)
    return forms


@pytest.mark.parametrize("path, variant", ALL, ids=lambda x: getattr(x, "stem", x))
def test_every_config_is_valid_and_has_a_tiny_form(path: Path, variant: str) -> None:
    configs.validate(load(path, variant))
    tiny = load(path, f"{variant},tiny")
    configs.validate(tiny)
    assert tiny.corpus == "python"
    assert tiny.hidden_size == 24 and not tiny.param_budget


@pytest.mark.parametrize("path, variant", tiny_forms(), ids=lambda x: getattr(x, "stem", x))
def test_a_tiny_form_trains(path: Path, variant: str) -> None:
    named = argument(path, f"{variant},tiny")
    done = call_module("train", f"--config={path}:{named}", "--dry_run")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", config_files(), ids=lambda p: p.stem)
def test_every_config_has_the_header_of_a_notebook_entry(path: Path) -> None:
    header = path.read_text().split('"""')[1]
    for part in ("Paper", "Expected", "Cost", "Command"):
        assert re.search(rf"^{part} +\S", header, flags=re.M), part
    for variant in named_variants(path):
        assert variant in header, f"{variant} is not in the header"
    assert re.search(r"^Cost +.*\d", header, flags=re.M)
    assert not re.search(r"[A-Z]+_[A-Z_]+", header), "a placeholder"
    with pytest.raises(UserError, match="unknown variant"):
        load(path, "no_such_variant")


def test_defaults_are_those_of_the_cell_and_of_its_parameters() -> None:
    """Both have them: layers are made without a config."""
    of_init = inspect.signature(parameters.init).parameters
    for field in dataclasses.fields(Cell):
        if field.name not in ("kind", "integration"):
            assert configs.FIELDS[field.name].default == field.default, field.name
    for name in ("orthogonal", "transform_bias", "forget_bias", "mi_init"):
        assert configs.FIELDS[name].default == of_init[name].default, name
