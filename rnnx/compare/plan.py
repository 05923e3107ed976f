"""What fits into the minutes: how many candidates, trials, seeds and epochs."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

LEAST_EPOCHS = 8  # rather than fewer, something else is left out
MOST_EPOCHS = 60
SEEDS = 6  # with five, the exact sign-flip test over seeds cannot reach .05
FRACTIONS = (0.1, 0.3)  # of the training data; the whole is there anyway
FRACTIONS_OUT = "training on a part of the data"
EQUAL_OUT = "the table of equal training seconds"
SHARE = 0.85  # of the minutes that trainings may take by the estimate


@dataclass
class Speed:
    """What a run of a candidate takes, measured before the plan is made."""

    start: float  # seconds until the first update, with a warm cache of compiled programs
    update: float  # seconds an update
    validation: float  # seconds of scoring valid
    updates: int  # an epoch

    def seconds(self, epochs: int, fraction: float = 1.0) -> float:
        """Of a run of so many epochs, on a share of the training data."""
        updates = math.ceil(self.updates * fraction)
        an_epoch = updates * self.update + self.validation
        return self.start + epochs * an_epoch

    @property
    def an_epoch(self) -> float:
        """Seconds of training."""
        return self.updates * self.update


@dataclass
class Plan:
    """How a comparison is run; all of it decided before the first training."""

    candidates: list[str]
    trials: int
    seeds: int
    epochs: int  # of the tables
    tuned_for: int  # epochs of the tuning trials
    equal_seconds: float  # training seconds of the second table; 0: left out
    fractions: tuple[float, ...]
    left_out: list[str] = field(default_factory=list)
    seconds: float = 0.0  # expected, of all trainings

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict) -> "Plan":
        return cls(**stored | {"fractions": tuple(stored["fractions"])})

    def epochs_in(self, speed: Speed) -> int:
        """Epochs of a candidate in the table of equal seconds."""
        return max(round(self.equal_seconds / speed.an_epoch), 1)


def make(
    speeds: dict[str, Speed],
    candidates: Sequence[str],
    minutes: float,
    workers: int,
    *,
    trials: int = 8,
    seeds: int = SEEDS,
    most_epochs: int = MOST_EPOCHS,
    fractions: Sequence[float] = FRACTIONS,
) -> Plan:
    """The plan with as many epochs as fit; parts are left out, in this order, where even the
    fewest epochs do not: fractions of the data, the table of equal seconds, half of the tuning
    trials, then candidates from the end of the list.

    Args:
      speeds: of each candidate, the first of which is the reference.
      workers: trainings side by side.
    """
    available = 60 * minutes * workers * SHARE
    names, parts = list(candidates), {"fractions": True, "equal": True}
    left_out: list[str] = []
    while True:
        shares = tuple(fractions) if parts["fractions"] else ()
        plan = Plan(names, trials, seeds, 0, 0, 0.0, shares)
        for epochs in range(most_epochs, 0, -1):
            plan.epochs = plan.tuned_for = epochs
            # As long as the reference trains in the first table, so that its row is the same.
            plan.equal_seconds = epochs * speeds[names[0]].an_epoch if parts["equal"] else 0.0
            plan.seconds = _seconds(plan, speeds)
            if plan.seconds <= available:
                break
        plan.left_out = left_out
        if plan.epochs >= min(LEAST_EPOCHS, most_epochs) and plan.seconds <= available:
            break
        if parts["fractions"] and fractions:
            parts["fractions"] = False
            left_out.append(FRACTIONS_OUT)
        elif parts["equal"]:
            parts["equal"] = False
            left_out.append(EQUAL_OUT)
        elif trials > 4:
            left_out.append(f"{trials - 4} of {trials} tuning trials")
            trials = 4
        elif len(names) > 3:
            left_out.append(names.pop())
        else:
            break
    plan.seconds /= workers
    return plan


def revise(plan: Plan, speeds: dict[str, Speed], seconds: float, workers: int) -> Plan:
    """The plan for what comes after tuning, in the seconds that are left, by the speeds that were
    measured in it.

    Parts are left out as in `make`; then epochs, but not more than half of them, as the networks
    were tuned for so many.
    """
    plan = Plan.from_json(plan.to_json())
    plan.left_out = list(plan.left_out)

    if plan.equal_seconds:
        plan.equal_seconds = plan.epochs * speeds[plan.candidates[0]].an_epoch

    def fits() -> bool:
        plan.seconds = _tables(plan, speeds) / workers
        return plan.seconds <= seconds

    if not fits() and plan.fractions:
        plan.fractions = ()
        plan.left_out.append(FRACTIONS_OUT)
    if not fits() and plan.equal_seconds:
        plan.equal_seconds = 0.0
        plan.left_out.append(EQUAL_OUT)
    while not fits() and plan.epochs > max(plan.tuned_for // 2, 1):
        plan.epochs -= 1
    if fewer := plan.tuned_for - plan.epochs:
        plan.left_out.append(f"{fewer} of {plan.tuned_for} epochs after tuning")
    return plan


def tuning_seconds(plan: Plan, speeds: dict[str, Speed]) -> float:
    """Of all tuning trials one after the other."""
    return sum(plan.trials * speeds[name].seconds(plan.tuned_for) for name in plan.candidates)


def _seconds(plan: Plan, speeds: dict[str, Speed]) -> float:
    """Of all trainings one after the other."""
    return tuning_seconds(plan, speeds) + _tables(plan, speeds)


def _tables(plan: Plan, speeds: dict[str, Speed]) -> float:
    """Of all trainings after tuning, one after the other."""
    total, reference = 0.0, plan.candidates[0]
    for name in plan.candidates:
        tables = 2 if name == reference else 1  # the control
        total += tables * plan.seeds * speeds[name].seconds(plan.epochs)
        if plan.equal_seconds and name != reference:
            total += plan.seeds * speeds[name].seconds(plan.epochs_in(speeds[name]))
    # The reference and the two best, which are not known yet: the slowest are assumed.
    slowest = sorted(plan.candidates, key=lambda name: -speeds[name].an_epoch)[:2]
    for name in {reference, *slowest}:
        for fraction in plan.fractions:
            total += plan.seeds * speeds[name].seconds(plan.epochs, fraction)
    return total
