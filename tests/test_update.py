"""Updates: the RHN authors' recorded numbers, and masks that follow seed and step."""

import ast
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from conftest import QUIET, on_devices, small, window, words
from test_cells import to_reference

from rnnx import config as configs
from rnnx import model, optim, parallel, score, tasks, update
from rnnx.dropout import Masks
from rnnx.experiment import Experiment
from rnnx.parallel import EVERYWHERE, ROWS
from rnnx.tasks import network
from rnnx.update import State

GOLDEN = Path(__file__).parent / "golden_rhn_tied.npz"


def golden_params(golden, prefix: str, depth: int) -> dict[str, np.ndarray]:
    """The recorded variables under our names: a layer's matrix is [W; R], ours one a side."""
    params = {
        "embedding": golden[f"{prefix}/model/embedding:0"],
        "softmax_bias": golden[f"{prefix}/model/softmax_b:0"],
    }
    for l in range(depth):
        matrices, biases = (
            np.concatenate(
                [golden[f"{prefix}/model/RHN0/{g}_{l}/Linear/{part}:0"] for g in "ht"], axis=-1
            )
            for part in ("Matrix", "Bias")
        )
        block = f"stack.layers.0.blocks.{l}"
        params[f"{block}.b"] = biases
        n = biases.size // 2
        params[f"{block}.U"] = matrices[-n:]
        if l == 0:
            params[f"{block}.W"] = matrices[:-n]
    return params


@pytest.mark.parametrize("devices", [1, 2])
def test_six_steps_of_the_authors_rhn(devices: int) -> None:
    """Costs, states and all variables after six clipped SGD steps, as recorded from their code."""
    golden = np.load(GOLDEN)
    told = ast.literal_eval(str(golden["config"]))
    config = configs.default()
    config.update(
        level="word",
        cell="rhn",
        depth=told["depth"],
        hidden_size=told["hidden_size"],
        tied=True,
        batch_size=told["batch_size"],
        num_steps=told["num_steps"],
        weight_decay=told["weight_decay"],
        max_grad_norm=told["max_grad_norm"],
    )
    task, spec = tasks.of(config), words(told["vocab_size"])
    config = network.resolve(config, spec)
    graphdef, ours = model.split(network.build(config, spec))
    params = golden_params(golden, "init", told["depth"])
    assert {k: p.shape for k, p in params.items()} == {k: p.shape for k, p in ours.items()}

    noise = {name: jnp.asarray(golden[f"noise_{name}"]) for name in "xiho"}

    def recorded_masks(task, config, net, seed, number, rows, batch) -> Masks:
        return Masks(
            x=noise["x"][number, rows, :, 0].T,
            i=(noise["i"][number, rows, :, 0],),
            h=(noise["h"][number, rows, :, 0],),
            o=noise["o"][number, rows, 0],
        )

    mesh = parallel.batch_mesh(config.batch_size, jax.devices()[:devices])
    step = update.make_updates(task, config, graphdef, mesh, recorded_masks)
    carries = score.zero_carries(task, graphdef, ours, config.batch_size, mesh)
    params = parallel.shard({k: np.array(p) for k, p in params.items()}, mesh, EVERYWHERE)
    state = State(params, optim.update_rule(config).init(params), carries)
    for i in range(6):
        batch = on_devices(window(golden["x"][i], golden["y"][i]), mesh)
        rate = np.float32(told["learning_rate"])
        state, values = step(state, batch, np.uint32(0), np.int32(i), np.int32(1), rate)
        np.testing.assert_allclose(values["loss"][0], golden["cost"][i], rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(
            state.carries[0][0], golden["final_state"][i, 0], rtol=0, atol=1e-5
        )
    final = golden_params(golden, "final", told["depth"])
    for name, p in state.params.items():
        np.testing.assert_allclose(p, final[name], rtol=0, atol=1e-5, err_msg=name)
        assert np.abs(final[name] - np.asarray(golden_params(golden, "init", 3)[name])).max() > 1e-3


@pytest.mark.parametrize(
    "fields",
    [
        {"cell": "rhn", "depth": 2, "tied": True, "integration": "additive"},
        {"cell": "rhn", "depth": 2, "coupled": False, "integration": "mi_simple"},
        {"cell": "lstm", "depth": 1, "integration": "mi"},
        {"cell": "gru", "depth": 1, "tied": True, "integration": "mi"},
    ],
    ids=lambda fields: f"{fields['cell']}-{fields['integration']}",
)
def test_cost_gradients_and_states_equal_the_float64_reference(fields: dict, text: Path) -> None:
    """An update at rate 1 and without clipping takes the gradient off: on two devices, of two
    layers, with every dropout, L2 and a carried state."""
    batch, steps, size, n = 4, 3, 5, 3
    config = small(
        text, num_layers=2, hidden_size=n, embed_size=n, batch_size=batch, num_steps=steps,
        max_grad_norm=0.0, weight_decay=0.1, **fields,
    )  # fmt: skip
    task, config = tasks.of(config), network.resolve(config, words(size))
    cell, rng = configs.cell_of(config), np.random.default_rng(0)
    graphdef, params = model.split(network.build(config, words(size)))
    params = {k: 0.5 * rng.standard_normal(p.shape).astype("f") for k, p in params.items()}
    net = model.merge(graphdef, params)
    layers = task.zero_carry(net, batch)
    carries = jax.tree.map(lambda c: 0.5 * rng.standard_normal(c.shape).astype("f"), layers)
    x, y = rng.integers(0, size, (2, batch, steps), np.int32)
    read = {"inputs": jnp.asarray(x)}
    masks = update.update_masks(task, config, net, 0, jnp.int32(7), jnp.arange(batch), read)

    def renamed(ours: dict) -> dict[str, np.ndarray]:
        names = {
            "embedding": "embedding",
            "softmax_weights": "softmax_w",
            "softmax_bias": "softmax_b",
        }
        named = {names[k]: np.float64(v) for k, v in ours.items() if k in names}
        for k in range(2):
            blocks = [
                {
                    name.rpartition(".")[2]: v
                    for name, v in ours.items()
                    if name.startswith(f"stack.layers.{k}.blocks.{block}.")
                }
                for block in range(len(cell.blocks))
            ]
            named |= {f"{k}.{name}": v for name, v in to_reference(cell, blocks).items()}
        return named

    options = {"kind": cell.integration, "wd": 0.1}
    if cell.kind == "rhn":
        options |= {"depth": cell.depth, "coupled": cell.coupled}
    if cell.kind == "gru":
        options |= {"reset_after": cell.reset_after}
    starts = [c if len(c) > 1 else c[0] for c in jax.tree.map(np.float64, carries)]
    masked = {"x_mask": masks.x.T, "i_masks": masks.i, "h_masks": masks.h, "o_mask": masks.o}
    masked = jax.tree.map(np.float64, masked)

    def cost(named: dict) -> tuple:
        return reference.lm_cost(cell.kind, named, x, y, starts, **masked, **options)

    expected, last = cost(renamed(params))
    gradient = reference.gradient(lambda p: cost(p)[0], renamed(params))

    mesh = parallel.batch_mesh(batch)
    arrays = params, optim.update_rule(config).init(params)
    state = State(*parallel.shard(arrays, mesh, EVERYWHERE), parallel.shard(carries, mesh, ROWS))
    updates = update.make_updates(task, config, graphdef, mesh)
    rows = on_devices(window(x, y), mesh)
    state, metrics = updates(state, rows, np.uint32(0), np.int32(7), np.int32(1), np.float32(1.0))
    assert float(metrics["loss"][0]) == pytest.approx(expected, rel=1e-6)
    ours = renamed({k: params[k] - np.asarray(p) for k, p in state.params.items()})
    assert ours.keys() == gradient.keys()
    for name, theirs in gradient.items():
        np.testing.assert_allclose(ours[name], theirs, rtol=1e-5, atol=1e-6, err_msg=name)
    for a, b in zip(jax.tree.leaves(state.carries), jax.tree.leaves(last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_masks_differ_between_updates_and_follow_the_seed(text: Path) -> None:
    config, batch = small(text, embed_size=7), {"inputs": jnp.zeros((8, 5), int)}
    task, net = tasks.of(config), network.build(config, words(7))

    def output_mask(number: int, seed: int = 0) -> np.ndarray:
        rows = jnp.arange(8)
        return np.asarray(update.update_masks(task, config, net, seed, number, rows, batch).o)

    assert np.array_equal(output_mask(3), output_mask(3))
    assert not np.array_equal(output_mask(3), output_mask(4))
    assert not np.array_equal(output_mask(3), output_mask(3, seed=1))


@pytest.mark.parametrize("cell", [{}, {"cell": "lstm", "depth": 1}])
def test_shared_fields_leave_the_program_as_it_is(text: Path, tmp_path: Path, cell: dict) -> None:
    """A sweep over them compiles once, and may train its runs together. A dropout rate is not one
    of them."""
    values = {"mi_init": (2.0, 0.5, 0.5), "transform_bias": -1.0, "forget_bias": 0.5}
    values |= {"seed": 7, "learning_rate": 0.3, "lr_decay": 2.0, "flat_epochs": 2, "patience": 2}
    values |= {"init_scale": 0.3, "input_scale": 0.3, "orthogonal": 0.5}
    assert values.keys() == set(configs.SHARED)

    def program(**fields) -> str:
        config = small(text, weight_noise=0.1, **cell | fields)
        run = Experiment(config, tmp_path / "run", QUIET)
        batches = run.batches.together(0, 4, 4)
        numbers = np.uint32(config.seed), np.int32(0), np.int32(4), np.float32(0.1)
        return run.updates.lower(run.state, batches, *numbers).as_text()

    first = program()
    assert [name for name, value in values.items() if program(**{name: value}) != first] == []
    assert program(drop_h=0.3) != first


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_three_updates_by_hand_with_optax(optimizer: str) -> None:
    """The rule's own state is carried: Adam's second and third update are not its first again."""
    config = configs.default()
    config.update(
        level="word", depth=2, hidden_size=6, batch_size=4, optimizer=optimizer, weight_decay=1e-2,
        num_steps=7, max_grad_norm=0.0, init_scale=0.5,
    )  # fmt: skip
    task, config = tasks.of(config), network.resolve(config, words(9))
    graphdef, params = model.split(network.build(config, words(9)))
    tokens = np.random.default_rng(0).integers(0, 9, (3, 4, 8))
    x, y = tokens[..., :-1], tokens[..., 1:]

    def loss(params, x, y, carries):
        nll, carries = model.merge(graphdef, params).nll(x.T, y.T, carries)
        decay = sum(jnp.sum(p**2) for p in params.values()) * (1e-2 / 2)
        return nll.sum() / 4 + (decay if optimizer == "adam" else 0.0), carries

    rule = optax.adam(0.01) if optimizer == "adam" else optax.adamw(0.01, weight_decay=1e-2)
    by_hand, moments = params, rule.init(params)
    carries = model.merge(graphdef, params).stack.zero_carry(4)
    gradient = jax.jit(jax.grad(loss, has_aux=True))
    for i in range(3):
        grads, carries = gradient(by_hand, x[i], y[i], carries)
        direction, moments = rule.update(grads, moments, by_hand)
        by_hand = optax.apply_updates(by_hand, direction)

    mesh = score.local_mesh()
    step = update.make_updates(task, config, graphdef, mesh)
    copy = parallel.shard(jax.tree.map(np.array, params), mesh, EVERYWHERE)
    zero = score.zero_carries(task, graphdef, params, 4, mesh)
    state = State(copy, optim.update_rule(config).init(copy), zero)
    for i in range(3):
        batch = on_devices(window(x[i], y[i]), mesh)
        state, _ = step(state, batch, np.uint32(0), np.int32(i), np.int32(1), np.float32(0.01))
    for name in params:
        np.testing.assert_allclose(state.params[name], by_hand[name], atol=2e-5, err_msg=name)


def test_weight_noise_moves_the_place_where_the_gradient_is_taken() -> None:
    """The gradient is that at the parameters with the noise added; another update, other noise."""
    config = configs.default()
    config.update(level="word", hidden_size=6, batch_size=4, init_scale=0.5, max_grad_norm=0.0)
    task, config = tasks.of(config), network.resolve(config, words(9))
    graphdef, params = model.split(network.build(config, words(9)))
    params, mesh = jax.tree.map(np.array, params), score.local_mesh()
    tokens = np.random.default_rng(0).integers(0, 9, (4, 8))
    batch = on_devices(window(tokens[:, :-1], tokens[:, 1:]), mesh)

    def direction(at: dict, noise: float, number: int) -> dict:
        config.weight_noise = noise
        step = update.make_updates(task, config, graphdef, mesh)
        copy = parallel.shard(jax.tree.map(np.array, at), mesh, EVERYWHERE)
        zero = score.zero_carries(task, graphdef, at, 4, mesh)
        state = State(copy, optim.update_rule(config).init(copy), zero)
        numbers = np.uint32(0), np.int32(number), np.int32(1), np.float32(1.0)
        state, _ = step(state, batch, *numbers)
        return {name: at[name] - np.asarray(p) for name, p in state.params.items()}

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), update._NOISE), 5)
    drawn, moved = np.asarray(jax.random.normal(key, (sum(p.size for p in params.values()),))), {}
    for name in sorted(params):
        own, drawn = np.split(drawn, [params[name].size])
        moved[name] = params[name] + 0.3 * own.reshape(params[name].shape)
    assert not len(drawn)
    noisy, expected = direction(params, 0.3, 5), direction(moved, 0.0, 5)
    other, plain = direction(params, 0.3, 6), direction(params, 0.0, 5)
    for name in params:
        np.testing.assert_allclose(noisy[name], expected[name], atol=1e-5, err_msg=name)
    assert max(np.abs(noisy[n] - other[n]).max() for n in params) > 1e-2
    assert max(np.abs(noisy[n] - plain[n]).max() for n in params) > 1e-2


def test_a_batch_passed_over_leaves_the_zero_state_even_where_its_own_is_finite() -> None:
    config = configs.default()
    config.update(level="word", hidden_size=6, batch_size=4, init_scale=0.5, on_nan="skip")
    task, config = tasks.of(config), network.resolve(config, words(9))
    graphdef, params = model.split(network.build(config, words(9)))
    params = jax.tree.map(np.array, params)
    tokens = np.random.default_rng(0).integers(0, 9, (4, 8))
    mesh = score.local_mesh()

    def after(highest: float) -> tuple[State, dict]:
        copy = parallel.shard(params, mesh, EVERYWHERE)
        zero = score.zero_carries(task, graphdef, params, 4, mesh)
        state = State(copy, optim.update_rule(config).init(copy), zero)
        step = update.make_updates(task, config, graphdef, mesh, highest=highest)
        batch = on_devices(window(tokens[:, :-1], tokens[:, 1:]), mesh)
        return step(state, batch, np.uint32(0), np.int32(0), np.int32(1), np.float32(0.1))

    kept, _ = after(highest=np.inf)
    assert all(np.any(h) for h in jax.tree.leaves(kept.carries))
    passed, metrics = after(highest=0.0)  # any score is worse
    assert np.isfinite(metrics["loss"][0]) and np.isnan(metrics["sums"]["nll"][0][0])
    assert not any(np.any(h) for h in jax.tree.leaves(passed.carries))
    for name, p in params.items():
        np.testing.assert_array_equal(passed.params[name], p, err_msg=name)


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is() -> None:
    """sqrt at 0: no cost, an infinite slope times 0."""
    config = configs.default()
    config.update(level="word", hidden_size=6, batch_size=4, init_scale=0.5, on_nan="skip")
    task, config = tasks.of(config), network.resolve(config, words(9))

    class Bent(type(task)):
        def cost(self, net, batch, carries, masks):
            costs, *rest = super().cost(net, batch, carries, masks)
            return costs + jnp.sqrt(0.0 * jnp.sum(net.softmax_bias[...])), *rest

    graphdef, params = model.split(network.build(config, words(9)))
    params, mesh = jax.tree.map(np.array, params), score.local_mesh()
    placed = parallel.shard(params, mesh, EVERYWHERE)
    carries = score.zero_carries(task, graphdef, params, 4, mesh)
    state = State(placed, optim.update_rule(config).init(placed), carries)
    step = update.make_updates(Bent(), config, graphdef, mesh)
    x = np.random.default_rng(0).integers(0, 9, (4, 8))
    batches = on_devices(window(x[:, :-1], x[:, 1:]), mesh)
    after, metrics = step(state, batches, np.uint32(0), np.int32(0), np.int32(1), np.float32(0.1))
    assert np.isfinite(metrics["loss"][0]) and not np.isfinite(metrics["grad_norm"][0])
    for name, p in params.items():
        np.testing.assert_array_equal(after.params[name], p)
