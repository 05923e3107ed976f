"""Lists the packages: configs/ is installed as rnnx.configs. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rnnx*"]), "rnnx.configs"],
    package_dir={"rnnx.configs": "configs"},
)
