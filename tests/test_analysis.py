"""The numbers behind the pictures, each against a second way to come by it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import full, words

from rnnx import cells, model
from rnnx import config as configs
from rnnx.analysis import gates, interaction, jacobian, lesions, memory, numbers, trace
from rnnx.dropout import Masks
from rnnx.tasks import network

V = 11
CELLS = [
    {"cell": "rnn"},
    {"cell": "rnn", "integration": "mi"},
    {"cell": "gru", "integration": "mi_simple"},
    {"cell": "lstm"},
    {"cell": "lstm", "integration": "mi", "num_layers": 2},
    {"cell": "rhn", "depth": 3},
    {"cell": "rhn", "depth": 2, "integration": "mi", "num_layers": 2, "coupled": False},
    {"cell": "dtsrnn", "depth": 2},
]


def built(seed: int = 0, **fields):
    """A config, and a model of it with variables large enough to matter."""
    config = configs.default()
    config.update({"hidden_size": 8, "init_scale": 0.6, "transform_bias": -0.5, "seed": seed})
    config.update(fields)
    config = network.resolve(config, words(V))
    graphdef, params = model.split(network.build(config, words(V)))
    return config, graphdef, params


def nll(graphdef, params, tokens: np.ndarray) -> float:
    """The mean of nats a target, by the protocol `full`."""
    nats, targets = full(graphdef, params, tokens)
    return nats / targets


def text(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, V, n).astype(np.uint8)


@pytest.mark.parametrize("fields", CELLS, ids=str)
def test_what_is_traced_is_what_happens(fields: dict) -> None:
    _, graphdef, params = built(**fields)
    net = model.merge(graphdef, params)
    x = text(24).reshape(12, 2).astype(np.int32)
    carries = net.stack.zero_carry(2)
    expected, after = net.outputs(x, carries)
    ys, last, insides = trace.through(net, x, carries)
    np.testing.assert_allclose(ys, expected, atol=1e-5)
    for a, b in zip(jax.tree.leaves(last), jax.tree.leaves(after), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for layer, inside in zip(net.stack.layers, insides, strict=True):
        state = tuple(s[5] for s in inside.before)
        wx = tuple(w if w is None else w[5] for w in inside.wx)
        following = cells.step(layer.cell, layer.params, state, wx)
        for a, b in zip(following, inside.before, strict=True):
            np.testing.assert_allclose(a, b[6], atol=1e-5)


def test_gates_are_those_of_the_equations() -> None:
    config, graphdef, params = built(cell="rhn", depth=2)
    tokens = text(150)  # more than two chunks
    found, (carried,) = gates.over_text(graphdef, params, configs.cell_of(config), tokens, V)
    assert [(g.layer, g.block, g.name) for g in found] == [
        (0, 0, "transform gate"), (0, 1, "transform gate")
    ]  # fmt: skip
    name = "stack.layers.0.blocks.{}.{}".format
    s, opened, kept = np.zeros(8), [], []
    for token in tokens:
        share = np.ones(8)
        for k in range(2):
            a = s @ params[name(k, "U")] + params[name(k, "b")]
            a = a + params["embedding"][token] @ params[name(k, "W")] if k == 0 else a
            h, t = np.tanh(a[:8]), 1 / (1 + np.exp(-a[8:]))
            s = h * t + s * (1 - t)
            opened.append(t)
            share = share * (1 - t)
        kept.append(share)
    for k, gate in enumerate(found):
        t = np.stack(opened[k::2])
        np.testing.assert_allclose(gate.over_time, [t.mean(1), t.std(1)], atol=1e-5)
        np.testing.assert_allclose(gate.of_units, t.mean(0), atol=1e-5)
        for token in range(V):
            mean = t[tokens == token].mean()
            assert gate.of_tokens[token] == pytest.approx(mean, abs=1e-5)
    np.testing.assert_allclose(carried, np.mean(kept, axis=0), atol=1e-5)


@pytest.mark.parametrize("fields", CELLS, ids=str)
def test_gates_of_every_cell(fields: dict) -> None:
    config, graphdef, params = built(**fields)
    cell = configs.cell_of(config)
    found, carried = gates.over_text(graphdef, params, cell, text(70), V)
    letters = {"lstm": 3, "gru": 2, "rhn": cell.depth * (1 if cell.coupled else 2)}
    assert len(found) == letters.get(cell.kind, 0) * config.num_layers
    assert all(g.over_time.shape == (2, 70) and np.all(g.over_time >= 0) for g in found)
    assert [c.size for c in carried] == [8 if found else 0] * config.num_layers
    assert all(np.all((c > 0) & (c < 1)) for c in carried)


def test_an_exponential_gate_is_shown_neither_as_a_gate_nor_as_a_candidate() -> None:
    config, graphdef, params = built(cell="slstm")
    net = model.merge(graphdef, params)
    _, _, (inside,) = trace.through(
        net, text(12)[:, None].astype(np.int32), net.stack.zero_carry(1)
    )
    assert inside.gates[0].keys() == {"f", "o", "z"}
    found, _ = gates.over_text(graphdef, params, configs.cell_of(config), text(12), V)
    assert [gate.name for gate in found] == ["forget gate", "output gate"]


def test_memory_length_is_the_time_constant() -> None:
    assert gates.memory_length(np.array([np.exp(-1 / 7)])) == pytest.approx(7)


def test_every_layer_has_its_own_jacobian() -> None:
    _, graphdef, params = built(cell="rnn", num_layers=2)
    tokens, p = text(120), jax.tree.map(np.asarray, params)
    x, expected = np.eye(V)[tokens] if "embedding" not in p else p["embedding"][tokens], []
    for layer in range(2):
        w, u, b = (p[f"stack.layers.{layer}.blocks.0.{name}"] for name in ("W", "U", "b"))
        h, states = np.zeros(8), []
        for step in x:
            h = np.tanh(step @ w + h @ u + b)
            states.append(h)
        x = np.stack(states)
        expected.append([(1 - x[t] ** 2)[:, None] * u.T for t in (3, 100)])
    found = list(numbers._jacobians(graphdef, params, tokens, np.array([3, 100])))
    np.testing.assert_allclose(found, np.swapaxes(expected, 0, 1), atol=1e-5)


# ---------------------------------------------------------------------------- lesions


@pytest.mark.parametrize("integration", ["additive", "mi", "mi_simple"])
@pytest.mark.parametrize("coupled", [True, False])
def test_a_closed_last_depth_is_a_network_without_it(integration: str, coupled: bool) -> None:
    fields = {"cell": "rhn", "integration": integration, "coupled": coupled}
    config, graphdef, params = built(depth=2, **fields)
    _, shallow, _ = built(depth=1, **fields)
    score = nll(graphdef, lesions.closed(params, config, 0, 1), text(200))
    kept = {name: p for name, p in params.items() if ".blocks.1." not in name}
    assert score == pytest.approx(nll(shallow, kept, text(200)), abs=1e-6)


@pytest.mark.parametrize("integration", ["additive", "mi", "mi_simple"])
def test_a_closed_first_depth_lets_nothing_in(integration: str) -> None:
    config, graphdef, params = built(cell="rhn", integration=integration, depth=2)
    net = model.merge(graphdef, lesions.closed(params, config, 0, 0))
    texts = (text(20, seed)[:, None].astype(np.int32) for seed in (1, 2))
    ys = [net.outputs(x, net.stack.zero_carry(1))[0] for x in texts]
    assert np.array_equal(*ys)


def test_lesions_are_rises_of_the_loss_with_students_interval() -> None:
    config, graphdef, params = built(cell="rhn", depth=2, num_layers=2)
    tokens = text(400)
    found = lesions.measure(graphdef, params, config, tokens, segments=5, groups=4)
    assert [f.name for f in found][:5] == [
        "layer 1, l = 1", "layer 1, l = 2", "layer 2, l = 1", "layer 2, l = 2", "layer 1, units 1-2"
    ]  # fmt: skip
    assert len(found) == 4 + 8
    bounds = np.arange(6) * 399 // 5
    rises = [
        nll(graphdef, lesions.closed(params, config, 1, 0), part) - nll(graphdef, params, part)
        for part in (tokens[a : b + 1] for a, b in itertools.pairwise(bounds))
    ]
    assert found[2].rise == pytest.approx(np.mean(rises), abs=1e-5)
    half = 2.776445 * np.std(rises, ddof=1) / np.sqrt(5)  # Student's t, 4 degrees of freedom
    assert found[2].half_width == pytest.approx(half, abs=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru", "rhn"])
def test_silent_units_are_units_without_outgoing_weights(kind: str) -> None:
    config, graphdef, params = built(cell=kind, num_layers=2)
    tokens = text(300)
    found = lesions.measure(graphdef, params, config, tokens, segments=3, groups=2)
    found = {f.name: f.rise for f in found}
    for layer, reader in ((0, "stack.layers.1.blocks.{}.W"), (1, "softmax_weights")):
        cut = dict(params)
        names = [f"stack.layers.{layer}.blocks.{k}.U" for k in range(3)]
        names += [reader.format(k) for k in range(3)]
        for name in set(names) & set(cut):
            cut[name] = cut[name].at[:4].set(0)
        losses = lesions._segment_losses(graphdef, tokens, 3)
        rise = np.mean(losses(cut, Masks()) - losses(params, Masks()))
        assert found[f"layer {layer + 1}, units 1-4"] == pytest.approx(rise, abs=1e-5)


# ---------------------------------------------------------------------------- memory


@pytest.mark.parametrize("fields", [CELLS[1], CELLS[5], {"cell": "gru"}], ids=str)
def test_gradients_are_products_of_jacobians(fields: dict) -> None:
    config, graphdef, params = built(**fields)
    tokens = text(9)
    found = memory.gradients(graphdef, params, tokens, windows=1, num_steps=8)
    assert found.mean.shape == (1, 8)
    net = model.merge(graphdef, params)
    layer, cell = net.stack.layers[0], configs.cell_of(config)
    x = tokens[:8].astype(np.int32)[:, None]
    ys, _, (inside,) = trace.through(net, x, net.stack.zero_carry(1))
    gradient = jax.grad(lambda y: -jax.nn.log_softmax(net.logits(y))[tokens[8]])(ys[-1, 0])
    for distance in range(8):
        expected = np.log10(np.linalg.norm(gradient))
        assert found.mean[0, distance] == pytest.approx(expected, abs=1e-3), distance
        t = 7 - distance
        wx = tuple(w if w is None else w[t, 0] for w in inside.wx)
        state = tuple(s[t, 0] for s in inside.before)
        gradient = jacobian.transition_jacobian(cell, layer.params, state, wx).T @ gradient


def rnn_in_numpy(params: dict, tokens: np.ndarray) -> np.ndarray:
    """The states (T, n) of a plain RNN, in float64."""
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    w, u, b = (p[f"stack.layers.0.blocks.0.{name}"] for name in ("W", "U", "b"))
    h, states = np.zeros(len(u)), []
    for token in tokens:
        h = np.tanh(p["embedding"][token] @ w + h @ u + b)
        states.append(h)
    return np.stack(states)


def softmax_in_numpy(params: dict, h: np.ndarray) -> np.ndarray:
    weights, bias = (np.asarray(params[f"softmax_{k}"], np.longdouble) for k in ("weights", "bias"))
    scores = h @ weights + bias
    scores = np.exp(scores - scores.max())
    return scores / scores.sum()


@pytest.mark.parametrize("scale", [1.0, 0.2, 1e-4])
def test_gradients_far_below_float32_are_products_of_jacobians(scale: float) -> None:
    """Sixty steps back, where float32 has long been zero and at last the squares in float64 are."""
    _, graphdef, params = built(cell="rnn")
    name = "stack.layers.0.blocks.0.U"
    params = params | {name: params[name] * scale}
    tokens, steps = text(61), 60
    found = memory.gradients(graphdef, params, tokens, windows=1, num_steps=steps).mean[0]
    states, u = rnn_in_numpy(params, tokens[:steps]), np.asarray(params[name], np.float64)
    p = softmax_in_numpy(params, states[-1]).astype(np.float64)
    p[tokens[steps]] -= 1
    g, expected = np.asarray(params["softmax_weights"], np.float64) @ p, []
    for h in states[::-1]:
        expected.append(float(np.log10(np.sqrt(np.sum(g.astype(np.longdouble) ** 2)))))
        g = u @ ((1 - h**2) * g)
    assert expected[-1] < {1.0: -8, 0.2: -40, 1e-4: -200}[scale]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_gradient_that_is_zero_is_shown_as_the_smallest() -> None:
    _, graphdef, params = built(cell="rnn")
    cut = params | {"stack.layers.0.blocks.0.U": jnp.zeros((8, 8))}
    found = memory.gradients(graphdef, cut, text(20), windows=2, num_steps=5)
    assert found.mean[0, 0] > -3 and (found.mean[0, 1:] == np.log10(memory.SMALLEST)).all()


@pytest.mark.parametrize("tied", [False, True])
def test_divergences_far_below_float32_are_right(tied: bool) -> None:
    """Small ones are half of the variance of log p - log p', which takes no cancelling sum."""
    _, graphdef, params = built(cell="rnn", tied=tied)
    name = "stack.layers.0.blocks.0.U"
    params = params | {name: params[name] * 0.3}
    tokens = text(60)
    found = memory.changed_token(graphdef, params, tokens, windows=1, num_steps=24)
    warm = 15  # a quarter of the text
    other = np.random.default_rng(0).choice(tokens[tokens != tokens[warm]])
    changed = tokens.copy()
    changed[warm] = other
    head = dict(params)
    if tied:
        head["softmax_weights"] = params["embedding"].T
    pairs = zip(rnn_in_numpy(params, tokens), rnn_in_numpy(params, changed), strict=True)
    expected = []
    for a, b in list(pairs)[warm : warm + 24]:
        p, q = softmax_in_numpy(head, a), softmax_in_numpy(head, b)
        d = np.log(p) - np.log(q)
        small = np.sum(p * d**2) / 2 - np.sum(p * d) ** 2 / 2
        expected.append(float(np.sum(p * d) if np.abs(d).max() > 1e-3 else small))
    assert expected[0] > 1e-3 and (np.diff(expected) < 0).all()
    sure = np.array(expected) > 1e-26
    assert sure.sum() > 10 and min(np.array(expected)[sure]) < 1e-20
    np.testing.assert_allclose(found[sure], np.array(expected)[sure], rtol=1e-2)


def test_gradients_of_stacks_have_a_row_for_each_layer() -> None:
    _, graphdef, params = built(cell="lstm", num_layers=2)
    found = memory.gradients(graphdef, params, text(100), windows=4, num_steps=10)
    assert found.mean.shape == found.spread.shape == (2, 10)
    assert np.isfinite(found.mean).all() and (found.spread > 0).all()


def test_activations_are_counted_all() -> None:
    _, graphdef, params = built(cell="rhn", depth=2)
    edges, density, (saturated,) = memory.activations(graphdef, params, text(130), bins=20)
    assert density.shape == (1, 20)
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(1)
    inner = density[0, 1:-1].sum() * (edges[1] - edges[0])  # bins of 0.1: |h| < 0.9
    assert saturated == pytest.approx(1 - inner, abs=1e-3)


def test_a_changed_token_is_forgotten_by_a_network_without_memory() -> None:
    _, graphdef, params = built(cell="rnn")
    forgetful = params | {"stack.layers.0.blocks.0.U": jnp.zeros((8, 8))}
    options = {"windows": 6, "num_steps": 12}
    found = memory.changed_token(graphdef, forgetful, text(200), **options)
    assert found.shape == (12,) and found[0] > 1e-3
    np.testing.assert_allclose(found[1:], 0, atol=1e-7)
    remembers = memory.changed_token(graphdef, params, text(200), **options)
    assert (remembers[:4] > 1e-5).all()


def test_parts_of_a_variance_are_those_of_its_terms() -> None:
    """y = a x + b s + c x s with x, s = +-1 of equal weight: parts a^2, b^2, c^2."""
    x, s = np.array([-1.0, 1.0])[:, None, None], np.array([1.0, -1.0, -1.0, 1.0])[None, :, None]
    found = interaction.parts(3 * x + 2 * s + 1 * x * s + 7, np.array([0.5, 0.5]))
    np.testing.assert_allclose(found, np.array([9, 4, 1]) / 14)
    assert found.dependent == pytest.approx(0.1)
    weighted = interaction.parts(np.repeat(5 * x, 4, axis=1) + s, np.array([0.9, 0.1]))
    np.testing.assert_allclose(weighted, np.array([25 * 0.36, 1, 0]) / 10, atol=1e-12)
    still = interaction.parts(np.ones((2, 4, 3)), np.array([0.5, 0.5]))
    assert still == (0, 0, 0) and still.dependent == 0


def test_a_sum_has_no_interaction_and_a_product_has() -> None:
    """An RNN so small that tanh is straight; with alpha it is a product."""
    shares = {}
    for kind, mi in (
        ("additive", (1.0, 1.0, 1.0)),
        ("mi", (0.0, 1.0, 1.0)),
        ("mi", (9.0, 1.0, 1.0)),
    ):
        _, graphdef, params = built(cell="rnn", integration=kind, mi_init=mi, init_scale=1.0)
        params = {
            name: 1e-3 * p if ".U" in name or ".W" in name else p for name, p in params.items()
        }
        shares[kind, mi[0]] = interaction.of_tokens(graphdef, params, text(300)).dependent
    assert shares["additive", 1.0] < 1e-4 and shares["mi", 0.0] < 1e-4
    assert shares["mi", 9.0] > 10 * shares["mi", 0.0]


@pytest.mark.parametrize("fields", [{"cell": "lstm"}, {"cell": "rhn", "depth": 2}], ids=str)
def test_outputs_for_pairs_are_those_of_a_step(fields: dict) -> None:
    _, graphdef, params = built(**fields)
    net = model.merge(graphdef, params)
    layer = net.stack.layers[0]
    state = tuple(
        jnp.asarray(np.random.default_rng(i).standard_normal((3, 8)), jnp.float32)
        for i in range(layer.cell.num_states)
    )
    kinds = np.arange(V, dtype=np.int32)
    found = interaction._outputs(graphdef, params, kinds, state)
    for token, states in ((2, 0), (7, 2)):
        wx = cells.project(layer.params, net.read(jnp.array([[token]]))[0])
        one = tuple(s[states : states + 1] for s in state)
        expected = cells.step(layer.cell, layer.params, one, wx)[0][0]
        np.testing.assert_allclose(found[token, states], expected, atol=1e-6)
