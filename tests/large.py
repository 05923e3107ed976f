"""Trains on a corpus of 1 GB of bytes, made here: how soon the first update comes, in what memory.

    scripts/test-large [--gigabytes=1]

The first run prepares the corpus. The second finds it prepared, and must make its first update
within 20 s of its start and hold less than twice the corpus's size. A corpus of 1 MB beside them
tells what of that is not the corpus.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
FIRST_UPDATE = 20.0  # seconds
TIMES_ITS_SIZE = 2.0


def write_bytes(path: Path, size: int) -> None:
    """Bytes of which some are more frequent than others."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        while left := size - file.tell():
            file.write(rng.geometric(0.05, min(left, 1 << 24)).astype(np.uint8).tobytes())


def train(corpus: Path, workdir: Path) -> tuple[float, float, float]:
    """Seconds to the first update and to the end, and the most memory held, in bytes."""
    fields = {
        "corpus": corpus, "level": "byte", "cell": "rhn", "depth": 2, "hidden_size": 128,
        "batch_size": 32, "num_steps": 50, "max_steps": 20, "eval_tokens": 1000,
    }  # fmt: skip
    command = [sys.executable, "-m", "rnnx.train", "--config=configs/enwik8.py"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    begun, first = time.monotonic(), None
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"RNNX_CACHE": str(corpus.parent / "cache")},
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if re.match("first update", line):
            first = time.monotonic() - begun
    _, status, used = os.wait4(process.pid, 0)
    if status or first is None:
        raise RuntimeError("".join(said))
    return (
        first,
        time.monotonic() - begun,
        used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options = parser.parse_args()
    size = int(options.gigabytes * 1e9)
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place, "small.bin"), Path(place, "large.bin")
        write_bytes(small, 1_000_000)
        write_bytes(large, size)
        runs = {
            "1 MB, to be prepared": small,
            "1 MB, prepared": small,
            f"{size / 1e9:g} GB, to be prepared": large,
            f"{size / 1e9:g} GB, prepared": large,
        }
        print(f"{'':24}{'first update':>14}{'whole run':>12}{'memory':>10}")
        for i, (name, corpus) in enumerate(runs.items()):
            first, whole, memory = train(corpus, Path(place, f"run{i}"))
            print(f"{name:24}{first:12.1f} s{whole:10.1f} s{memory / 1e9:7.2f} GB", flush=True)
    good = first < FIRST_UPDATE and memory < TIMES_ITS_SIZE * size
    print("as promised" if good else f"too slow (over {FIRST_UPDATE:g} s) or too large")
    return not good


if __name__ == "__main__":
    sys.exit(main())
