"""All numbers of an analysis, in types that JSON has; `pictures.py` draws them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from rnnx import checkpoint, model
from rnnx import config as configs
from rnnx.analysis import gates, interaction, jacobian, lesions, memory, trace
from rnnx.cells import Cell
from rnnx.display import Display
from rnnx.tasks import network
from rnnx.trained import open_run

TIMES = 6  # time steps at which Jacobians are computed
SHOWN = 80  # time steps in the heat map
STATISTICS = 2_000  # time steps that gates and activations are averaged over
LESIONED = 20_000  # targets that lesions are measured on
WINDOWS, DISTANCE = 32, 60  # of gradients and changed tokens: windows and their time steps


class Subject:
    """A run and the text that it reads in the analysis."""

    def __init__(self, folder: Path, tokens: np.ndarray):
        """tokens: (N,) ids of a split.

        Raises:
          UserError: when there is no run, or no checkpoint yet.
        """
        self.name, self.folder, self.tokens = folder.resolve().name, folder, tokens
        run = open_run(folder)
        self.config, self.vocabulary = run.config, run.spec
        self.graphdef, self.params, self.info = run.graphdef, run.params, run.info
        self.cell: Cell = configs.cell_of(run.config)

    @property
    def fresh(self) -> dict[str, Array]:
        """The parameters that the run began with."""
        return model.split(network.build(self.config, self.vocabulary))[1]

    def over_training(self) -> list[tuple[str, dict[str, Array]]]:
        """Names and parameters of all stages: fresh, the epochs that the run kept, best."""
        kept = checkpoint.read_epochs(self.folder, self.params)
        epochs = [(f"epoch {info['epoch'] + 1}", params) for params, info in kept]
        return [("fresh", self.fresh), *epochs, ("best", self.params)]

    def words(self, tokens: np.ndarray) -> list[str]:
        """A label for each token; white space is made visible."""
        symbols = (self.vocabulary.symbols[int(token)] for token in tokens)
        if self.vocabulary.level == "byte":
            symbols = (chr(s) if 32 <= s < 127 else f"{s:02x}" for s in symbols)
        visible = {" ": "\u2423", "\n": "\u21b5", "\t": "\u21e5"}
        return [visible.get(symbol, symbol) for symbol in symbols]


def of_run(subject: Subject, beside: Subject | None, display: Display) -> dict[str, Any]:
    """Everything about one run, and gradients, activations and memory of both runs."""
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
        found.setdefault("interaction", []).append({"run": one.name, "stages": _interaction(one)})
        found.setdefault("memory", []).append({"run": one.name, "kl": _changed(one)})
    if subject.cell.integration == "mi":
        found["mi"] = _vectors(subject)
    return found


def _jacobians(
    graphdef: Any, params: dict[str, Array], tokens: np.ndarray, times: np.ndarray
) -> Iterator[list[np.ndarray]]:
    """Every layer's Jacobian at each of some time steps, in order."""
    net = model.merge(graphdef, params)
    layers = net.stack.layers
    at = jax.jit(partial(jacobian.transition_jacobian, layers[0].cell))
    tokens = tokens[: int(times[-1]) + 1].astype(np.int32)[:, None]
    carries, start = net.stack.zero_carry(1), 0
    for time in times.tolist():
        # In parts: the gates of a long text would not fit into memory.
        for a in range(start, time, 64):
            part = tokens[a : min(a + 64, time)]
            carries, _ = trace.read(graphdef, params, part, carries)
        start = time
        _, insides = trace.read(graphdef, params, tokens[time : time + 1], carries)
        yield [
            np.asarray(at(layer.params, *jax.tree.map(lambda a: a[0, 0], inside[:2])))
            for layer, inside in zip(layers, insides, strict=True)
        ]


def _discs(subject: Subject, display: Display) -> list[dict]:
    """Discs of each layer over training: summaries of every stage, all discs of two of them."""
    text = subject.tokens
    times = np.linspace(min(20, len(text) // 2), min(400, len(text) - 2), TIMES).astype(int)
    stages, layers = subject.over_training(), subject.config.num_layers
    found: list[dict] = []
    display.start("discs over training", len(stages) * TIMES * layers)
    for stage, params in stages:
        discs: list[list[jacobian.Discs]] = [[] for _ in range(layers)]
        values: list[list[np.ndarray]] = [[] for _ in range(layers)]
        for done, matrices in enumerate(_jacobians(subject.graphdef, params, text, times)):
            for i, matrix in enumerate(matrices):
                discs[i].append(jacobian.discs(matrix))
                values[i].append(jacobian.eigenvalues(matrix))
                display.update(len(found) * TIMES + done * layers + i + 1)
        for i in range(layers):
            entry = {"layer": i + 1, "stage": stage, **_summary(discs[i])}
            entry["spectral_radius"] = [float(np.abs(v[0])) for v in values[i]]
            entry["outside_union"] = max(map(jacobian.outside, values[i], discs[i]))
            if stage in (stages[0][0], stages[-1][0]):
                entry |= {
                    "at": int(times[-1]),
                    "centres": _round(discs[i][-1].centres),
                    "radii": _round(discs[i][-1].radii),
                    "eigenvalues": [_round(values[i][-1].real), _round(values[i][-1].imag)],
                }
            found.append(entry)
    display.finish()
    return found


def _summary(discs: list[jacobian.Discs]) -> dict[str, list[float]]:
    """Mean and standard deviation of centres and radii."""
    parts = (np.concatenate(part) for part in zip(*discs, strict=True))
    return {
        name: [float(part.mean()), float(part.std())]
        for name, part in zip(("centre", "radius"), parts, strict=True)
    }


def _initial_radii(subject: Subject) -> list[dict]:
    """Radii of the fresh recurrent matrices' discs, for each gate, and what theory expects."""
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
    """Discs of fresh networks as wide as the run's, by depth L and by transform bias."""

    time = np.array([min(64, len(subject.tokens) - 2)])

    def summary(**changes: Any) -> dict:
        config: ConfigDict = subject.config.copy_and_resolve_references()
        config.update(changes, num_layers=1, param_budget=0)
        graphdef, params = model.split(network.build(config, subject.vocabulary))
        ((matrix,),) = _jacobians(graphdef, params, subject.tokens, time)
        largest = float(np.abs(jacobian.eigenvalues(matrix)[0]))
        return {**_summary([jacobian.discs(matrix)]), "spectral_radius": largest}

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


def _interaction(subject: Subject) -> list[dict]:
    stages = []
    for stage, params in subject.over_training():
        found = interaction.of_tokens(subject.graphdef, params, subject.tokens[:STATISTICS])
        stages.append({"stage": stage, **found._asdict(), "dependent": found.dependent})
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
            subject.graphdef, subject.params, subject.tokens,
            windows=WINDOWS, num_steps=steps,
        )
    )  # fmt: skip


def _vectors(subject: Subject) -> list[dict]:
    """General MI's vectors for each gate: initial value, and values after training."""
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
    """Values of five digits, which pictures need, to keep the file small."""
    values = np.asarray(values, np.float64)
    if values.ndim > 1:
        return [_round(row) for row in values]
    return [float(f"{v:.5g}") for v in values.ravel().tolist()]
