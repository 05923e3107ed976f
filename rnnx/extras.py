"""One line, not a traceback, when a command needs a package that is not installed.

The layers need jax and flax only; commands need the extras of pyproject.toml, such as
`pip install "rnnx[train]"`.
"""

import sys
from pathlib import Path
from types import TracebackType

# Names to import, by the extra that installs them.
EXTRAS = {
    "train": (
        "absl", "array_record", "ml_collections", "optax", "orbax", "requests", "rich", "scipy",
        "tensorboardX", "tensorflow_datasets",
    ),
    "sweep": ("optuna", "psycopg", "sqlalchemy"),
    "report": ("matplotlib",),
    "data": ("pandas", "pyarrow", "sklearn"),
    "speech": ("soundfile", "kaldi_native_fbank", "jiwer"),
    "sentences": ("sentencex", "sklearn"),
    "export": ("onnx", "onnxruntime", "safetensors"),
}  # fmt: skip


def explain_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A `sys.excepthook` that names the extra to install when one of its packages is missing.

    Raises:
      SystemExit: with code 2, after the one line. Other errors get their usual traceback.
    """
    program = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    module = (getattr(error, "name", None) or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    if not (isinstance(error, ModuleNotFoundError) and extra and program.startswith("rnnx.")):
        sys.__excepthook__(kind, error, trace)
        return
    root = Path(__file__).parent.parent
    checkout = (root / "pyproject.toml").exists()
    what = f"-r {root / 'requirements.txt'}" if checkout else f'"rnnx[{extra}]"'
    line = f"{program}: error: the package {module} is not installed: pip install {what}"
    print(line, file=sys.stderr)
    raise SystemExit(2)
