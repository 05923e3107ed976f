"""All numbers of an analysis, as JSON can hold them: measured once, drawn by `pictures.py`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from rnnx import checkpoint, model, workdir
from rnnx.analysis import gates, jacobian, lesions, memory, trace
from rnnx.cells import Cell
from rnnx.display import Display

TIMES = 6  # states of the text at which Jacobians are taken
SHOWN = 80  # steps of the text in the heat map
STATISTICS = 2_000  # steps that averages of gates and activations are taken over
LESIONED = 20_000  # targets that a lesion is measured on
WINDOWS, DISTANCE = 32, 60  # windows and steps back of gradients and changed tokens


class Subject:
    """A run and the text it is looked at with."""

    def __init__(self, folder: Path, tokens: np.ndarray):
        """tokens: (N,) ids of a split.

        Raises:
          UserError: when there is no run, or no checkpoint yet.
        """
        self.name, self.folder, self.tokens = folder.resolve().name, folder, tokens
        run = workdir.open_run(folder)
        self.config, self.vocabulary = run.config, run.vocabulary
        self.graphdef, self.params, self.info = run.graphdef, run.params, run.info
        self.cell: Cell = model.cell_of(run.config)

    @property
    def fresh(self) -> dict[str, Array]:
        """The parameters that the run began with."""
        return model.split(model.build(self.config, self.vocabulary.size))[1]

    def over_training(self) -> list[tuple[str, dict[str, Array]]]:
        """Fresh parameters, those of the epochs that the run keeps, and the best, with names."""
        kept = checkpoint.read_epochs(self.folder, self.params)
        epochs = [(f"epoch {info['epoch'] + 1}", params) for params, info in kept]
        return [("fresh", self.fresh), *epochs, ("best", self.params)]

    def words(self, tokens: np.ndarray) -> list[str]:
        """Tokens as labels: one symbol each, white space made visible."""
        symbols = (self.vocabulary.symbols[int(token)] for token in tokens)
        if self.vocabulary.level == "byte":
            symbols = (chr(s) if 32 <= s < 127 else f"{s:02x}" for s in symbols)
        visible = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
        return [visible.get(symbol, symbol) for symbol in symbols]


def of_run(subject: Subject, beside: Subject | None, display: Display) -> dict[str, Any]:
    """Everything about one run, and gradients and memory of another beside it."""
    found: dict[str, Any] = {
        "run": subject.name,
        "config": subject.config.to_dict(),
        "checkpoint": subject.info,
        "discs": _discs(subject, display),
    }
    if subject.cell.kind in ("rnn", "rhn"):
        found["initial_radii"] = _initial_radii(subject)
    if subject.cell.kind == "rhn":
        found["discs_by_depth"], found["discs_by_bias"] = _fresh_networks(subject, display)
    display.print("gates over the text")
    found["gates"] = _gates(subject)
    found["lesions"] = _lesions(subject, display)
    for one in filter(None, (subject, beside)):
        display.print(f"gradients and memory of {one.name}")
        found.setdefault("gradients", []).append({"run": one.name, "stages": _gradients(one)})
        found.setdefault("activations", []).append({"run": one.name, **_activations(one)})
        found.setdefault("memory", []).append({"run": one.name, "kl": _changed(one)})
    if subject.cell.integration == "mi":
        found["mi"] = _vectors(subject)
    return found


def _jacobians(
    graphdef: Any, params: dict[str, Array], tokens: np.ndarray, times: np.ndarray
) -> list[np.ndarray]:
    """The lowest layer's Jacobian at some times of the text, one after the other."""
    net = model.merge(graphdef, params)
    layer = net.stack.layers[0]
    tokens = tokens[: int(times[-1]) + 1].astype(np.int32)
    at = jax.jit(lambda p, carry, wx: jacobian.transition_jacobian(layer.cell, p, carry, wx))
    found = []
    carries, start = net.stack.zero_carry(1), 0
    for time in times:
        # Read up to this step only: insides of all steps at once would not fit for long texts.
        for a in range(start, int(time), 64):
            part = tokens[a : min(a + 64, int(time))]
            carries, _ = trace.read(graphdef, params, part[:, None], carries)
        start = int(time)
        _, insides = trace.read(graphdef, params, tokens[start : start + 1][:, None], carries)
        before = tuple(s[0, 0] for s in insides[0].before)
        wx = tuple(w if w is None else w[0, 0] for w in insides[0].wx)
        found.append(np.asarray(at(layer.params, before, wx)))
    return found


def _discs(subject: Subject, display: Display) -> list[dict]:
    """Discs over training: summaries at every stage, all discs for the first and the last."""
    times = np.linspace(min(20, len(subject.tokens) // 2), min(400, len(subject.tokens) - 2), TIMES)
    stages = subject.over_training()
    found = []
    display.start("discs over training", len(stages))
    for i, (stage, params) in enumerate(stages):
        display.update(i)
        matrices = _jacobians(subject.graphdef, params, subject.tokens, times.astype(int))
        discs = [jacobian.discs(m) for m in matrices]
        values = [jacobian.eigenvalues(m) for m in matrices]
        centres, radii = (
            np.concatenate([getattr(d, f) for d in discs]) for f in ("centres", "radii")
        )
        entry = {
            "stage": stage,
            "centre": [float(centres.mean()), float(centres.std())],
            "radius": [float(radii.mean()), float(radii.std())],
            "spectral_radius": [float(np.abs(v[0])) for v in values],
            "outside_union": max(map(jacobian.outside, values, discs)),
        }
        if i in (0, len(stages) - 1):
            entry |= {
                "at": int(times[-1]),
                "centres": _round(discs[-1].centres),
                "radii": _round(discs[-1].radii),
                "eigenvalues": [_round(values[-1].real), _round(values[-1].imag)],
            }
        found.append(entry)
    display.finish()
    return found


def _initial_radii(subject: Subject) -> list[dict]:
    """Radii of the recurrent matrices' own discs at the start, gate by gate, beside theory."""
    n, scale = subject.config.hidden_size, subject.config.init_scale
    mean, deviation = jacobian.uniform_radius(n, scale)
    # A Gaussian of the same variance, for comparison.
    gaussian = jacobian.gaussian_radius(n, scale / np.sqrt(3))
    fresh, found, deep = subject.fresh, [], subject.cell.kind == "rhn"
    for k, letters in enumerate(subject.cell.blocks):
        whole = np.asarray(fresh[f"stack.layers.0.blocks.{k}.U"])
        for g, letter in enumerate(letters):
            radii = jacobian.discs(whole[:, g * n : (g + 1) * n].T).radii
            found.append(
                {
                    "matrix": f"$R_{{{letter.upper()},{k + 1}}}$" if deep else "$R$",
                    "measured": [float(radii.mean()), float(radii.std())],
                    "uniform": [mean, deviation],
                    "gaussian": list(gaussian),
                }
            )
    return found


def _fresh_networks(subject: Subject, display: Display) -> tuple[list[dict], list[dict]]:
    """Discs of fresh networks of the run's width: by depth L, and by the transform bias."""

    time = np.array([min(64, len(subject.tokens) - 2)])

    def summary(**changes: Any) -> dict:
        config: ConfigDict = subject.config.copy_and_resolve_references()
        config.update(changes, num_layers=1, param_budget=0)
        graphdef, params = model.split(model.build(config, subject.vocabulary.size))
        (matrix,) = _jacobians(graphdef, params, subject.tokens, time)
        found = jacobian.discs(matrix)
        return {
            "centre": [float(found.centres.mean()), float(found.centres.std())],
            "radius": [float(found.radii.mean()), float(found.radii.std())],
            "spectral_radius": float(np.abs(jacobian.eigenvalues(matrix)[0])),
        }

    depths = sorted({1, 2, 4, 6, 10, subject.config.depth})
    biases = sorted({-4.0, -3.0, -2.0, -1.0, 0.0, subject.config.transform_bias})
    display.start("discs of fresh networks", len(depths) + len(biases))
    by_depth, by_bias = [], []
    for depth in depths:
        by_depth.append({"depth": depth, **summary(depth=depth)})
        display.update(len(by_depth))
    for bias in biases:
        by_bias.append({"bias": bias, **summary(transform_bias=bias)})
        display.update(len(by_depth) + len(by_bias))
    display.finish()
    return by_depth, by_bias


def _gates(subject: Subject) -> dict[str, Any]:
    tokens = subject.tokens[:STATISTICS]
    found, carried = gates.over_text(
        subject.graphdef, subject.params, subject.cell, tokens, subject.vocabulary.size
    )
    counts = np.bincount(tokens, minlength=subject.vocabulary.size)
    places = []
    for gate in found:
        often = np.flatnonzero(counts >= 3)
        order = often[np.argsort(-gate.of_tokens[often])]
        chosen = order if len(order) <= 24 else np.concatenate([order[:12], order[-12:]])
        places.append(
            {
                "layer": gate.layer + 1, "depth": gate.block + 1, "gate": gate.name,
                "mean": _round(gate.over_time[0][:SHOWN]),
                "spread": _round(gate.over_time[1][:SHOWN]),
                "overall": float(gate.over_time[0].mean()),
                "tokens": subject.words(chosen),
                "of_tokens": _round(gate.of_tokens[chosen]),
            }
        )  # fmt: skip
    lengths = [_round(np.sort(gates.memory_length(c))[::-1]) for c in carried if c.size]
    longest = [np.argsort(-c)[:10].tolist() for c in carried if c.size]
    return {
        "text": subject.words(tokens[:SHOWN]),
        "places": places,
        "memory_lengths": lengths,
        "longest_units": longest,
    }


def _lesions(subject: Subject, display: Display) -> list[dict]:
    tokens = subject.tokens[: LESIONED + 1]
    display.start("lesions", lesions.count(subject.config))
    found = lesions.measure(
        subject.graphdef, subject.params, subject.config, tokens, progress=display.update
    )
    display.finish()
    return [{"name": f.name, "rise": f.rise, "half_width": f.half_width} for f in found]


def _gradients(subject: Subject) -> list[dict]:
    steps = min(DISTANCE, len(subject.tokens) // 4)
    stages = []
    for stage, params in subject.over_training():
        found = memory.gradients(
            subject.graphdef, params, subject.tokens, windows=WINDOWS, num_steps=steps
        )
        stages.append({"stage": stage, "mean": _round(found.mean), "spread": _round(found.spread)})
    return stages


def _activations(subject: Subject) -> dict[str, Any]:
    edges, density, saturated = memory.activations(
        subject.graphdef, subject.params, subject.tokens[:STATISTICS]
    )
    return {"edges": _round(edges), "density": _round(density), "saturated": saturated}


def _changed(subject: Subject) -> list[float]:
    steps = min(DISTANCE, len(subject.tokens) // 4)
    return _round(
        memory.changed_token(
            subject.graphdef, subject.params, subject.tokens, subject.vocabulary.size,
            windows=WINDOWS, num_steps=steps,
        )
    )  # fmt: skip


def _vectors(subject: Subject) -> list[dict]:
    """General MI's vectors, a gate each: values after training, and what they began at."""
    n, found = subject.config.hidden_size, []
    initial = dict(zip(("alpha", "beta1", "beta2"), subject.config.mi_init, strict=True))
    for layer in range(subject.config.num_layers):
        for k, letters in enumerate(subject.cell.blocks):
            for vector, start in initial.items():
                values = subject.params.get(f"stack.layers.{layer}.blocks.{k}.{vector}")
                if values is None:
                    continue
                for g, letter in enumerate(letters):
                    found.append(
                        {
                            "layer": layer + 1, "gate": letter, "vector": vector, "initial": start,
                            "values": _round(np.asarray(values[g * n : (g + 1) * n])),
                        }
                    )  # fmt: skip
    return found


def _round(values: Any) -> list:
    """Five digits: what a picture shows, in a file of readable size."""
    values = np.asarray(values, np.float64)
    if values.ndim > 1:
        return [_round(row) for row in values]
    return [float(f"{v:.5g}") for v in values.ravel().tolist()]
