"""The machine's own rates, and what a rival's turns come to beside them."""

import functools
import platform
import re
import statistics
from pathlib import Path

from rnnx.bench import cases
from rnnx.bench.cases import Case
from rnnx.bench.rivals import Rival
from rnnx.errors import UserError


@functools.cache
def processor() -> str:
    """The CPU's family and model as `25/17`; where the system has no such numbers, its name."""
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        info = ""
    family = re.search(r"^cpu family\s*: (\d+)$", info, re.M)
    model = re.search(r"^model\s*: (\d+)$", info, re.M)
    if family and model:
        return f"{family[1]}/{model[1]}"
    return platform.processor() or platform.machine()


class Rates:
    """The machine's speed, measured again with every case: other work on it changes it."""

    SIZE, FLOATS = 2048, 1 << 26

    def __init__(self) -> None:
        self._product = Rival("product", "rnnx.bench.ours.sgemm", self.SIZE)
        self._reading = Rival("reading", "rnnx.bench.ours.read", self.FLOATS)
        self._both = self._product, self._reading
        for rival in self._both:
            rival.await_ready()
            rival.turn()

    def begin(self) -> None:
        """Discards the measurements of the case before."""
        for rival in self._both:
            rival.seconds.clear()

    def turn(self) -> None:
        """Measures both. Raises UserError when that fails: nothing has a bound then."""
        for rival in self._both:
            rival.turn(0.4)  # several calls: the first after a pause is slower
            if rival.failed:
                raise UserError(
                    f"the machine's rate of {rival.name} can't be measured: {rival.failed}"
                )

    @property
    def flops(self) -> float:
        """Float operations a second of a square product."""
        return 2 * self.SIZE**3 / statistics.median(self._product.seconds)

    @property
    def bytes(self) -> float:
        """Bytes a second read from memory."""
        return 4 * self.FLOATS / statistics.median(self._reading.seconds)

    def close(self) -> None:
        for rival in self._both:
            rival.close()


def row_of(rival: Rival, case: Case, rates: Rates) -> dict:
    """A rival's row in the JSON."""
    bound = cases.bound(case, rates.flops, rates.bytes)
    row = {"case": case.name, "label": case.label, "rival": rival.name, "cpu": processor()}
    row["failed"] = rival.failed
    if rival.failed is None:
        seconds = statistics.median(rival.seconds)
        row |= {
            "seconds": seconds,
            "fastest": min(rival.seconds),
            "slowest": max(rival.seconds),
            "tokens_per_second": case.tokens / seconds,
            "gflops": cases.flops(case) / seconds / 1e9,
            "bound_seconds": bound,
            "machine_flops": rates.flops,
            "machine_bytes_per_second": rates.bytes,
            "of_bound": bound / seconds,
            "windows_a_call": rival.units,
            "first_seconds": rival.first_seconds,
            "peak_bytes": rival.peak_bytes,
            "told": rival.told,
        }
    return row
