"""The NNX modules: cells inside flax's own containers, layers, stacks."""

import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import rnnx
from rnnx import cells, layers
from rnnx.cells import Cell

NAMES = [name for name in layers.BY_NAME if not name.endswith("Cell")]
XS = jax.random.normal(jax.random.key(0), (3, 5, 4))  # (B, T, m)


def build(name: str, m: int = 4, n: int = 6, seed: int = 0, **options):
    if any(deep in name for deep in ("RHN", "DT")):
        options.setdefault("depth", 3)
    return getattr(rnnx, name)(m, n, rngs=nnx.Rngs(seed), init_scale=0.5, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_in_nnx_rnn_equals_the_layer(name: str) -> None:
    cell, layer = build(f"{name}Cell"), build(name)
    carry, theirs = nnx.RNN(cell, return_carry=True)(XS)
    ours, last = layer(XS)
    assert ours.shape == (3, 5, 6)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    for a, b in zip(last, carry, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_cell_in_nnx_bidirectional() -> None:
    both = nnx.Bidirectional(nnx.RNN(build("RHNCell")), nnx.RNN(build("MIGRUCell", seed=1)))
    ys = both(XS)
    forward, _ = build("RHN")(XS)
    backward, _ = build("MIGRU", seed=1)(XS[:, ::-1])
    np.testing.assert_allclose(
        ys, jnp.concatenate([forward, backward[:, ::-1]], axis=-1), atol=1e-6
    )


def test_gradients_reach_every_parameter_of_a_reader_s_own_model() -> None:
    class Tagger(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.layer = rnnx.RHN(4, 6, depth=2, integration="mi", rngs=rngs)
            self.head = nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, xs):
            return self.head(self.layer(xs)[0])

    model = Tagger(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(XS) - 1) ** 2))(model)
        optimizer.update(model, grads)
        return loss, grads

    first, grads = step(model, optimizer)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(grads))
    for _ in range(20):
        last, _ = step(model, optimizer)
    assert last < 0.5 * first


def test_carry_continues_a_sequence() -> None:
    layer = build("MILSTM")
    whole, last = layer(XS)
    first, carry = layer(XS[:, :2])
    second, carry = layer(XS[:, 2:], carry)
    np.testing.assert_allclose(whole, jnp.concatenate([first, second], axis=1), atol=1e-6)
    np.testing.assert_allclose(last[1], carry[1], atol=1e-6)


def test_time_major_is_the_same_with_axes_swapped() -> None:
    layer = build("GRU")
    ys, _ = layer(XS.swapaxes(0, 1), time_major=True)
    np.testing.assert_allclose(ys.swapaxes(0, 1), layer(XS)[0], atol=1e-6)


def test_initialize_carry_takes_an_initialiser() -> None:
    cell = build("LSTMCell")
    zeros = cell.initialize_carry((3, 4), nnx.Rngs(0))
    drawn = cell.initialize_carry((3, 4), nnx.Rngs(0), jax.nn.initializers.normal())
    assert [c.shape for c in zeros] == [c.shape for c in drawn] == [(3, 6), (3, 6)]
    assert not any(c.any() for c in zeros) and all(c.any() for c in drawn)
    assert cell.num_feature_axes == 1


def test_a_stack_is_its_layers_one_over_the_other() -> None:
    stack = rnnx.Stack(Cell("gru", "mi"), 4, 6, num_layers=2, rngs=nnx.Rngs(0))
    ys, carries = stack(XS)
    below, first = stack.layers[0](XS)
    above, second = stack.layers[1](below)
    np.testing.assert_allclose(ys, above, atol=1e-6)
    np.testing.assert_allclose(carries[0][0], first[0], atol=1e-6)
    np.testing.assert_allclose(carries[1][0], second[0], atol=1e-6)
    assert stack.layers[0].params[0]["W"].shape == (4, 12)
    assert stack.layers[1].params[0]["W"].shape == (6, 12)


def test_stack_masks_reach_their_layers() -> None:
    stack = rnnx.Stack(Cell("rhn", depth=2), 4, 6, num_layers=2, rngs=nnx.Rngs(0))
    drop = jnp.asarray(np.random.default_rng(0).random((3, 6)) < 0.5, jnp.float32)
    ys, _ = stack(XS, input_masks=(None, drop), state_masks=(drop, None))
    below, _ = stack.layers[0](XS, mask=drop)
    above, _ = stack.layers[1](below * drop[:, None])
    np.testing.assert_allclose(ys, above, atol=1e-6)


def test_two_modules_of_different_seeds_differ_and_of_the_same_do_not() -> None:
    a, b, c = (build("RHN", seed=s).params[0]["U"] for s in (0, 0, 1))
    assert jnp.array_equal(a, b) and not jnp.array_equal(a, c)


OWN = {  # keywords that only some have
    "RNN": set(),
    "LinearRNN": set(),
    "LSTM": {"forget_bias"},
    "GRU": {"reset_after"},
    "RHN": {"depth", "coupled", "input_every", "transform_bias"},
    "DTRNN": {"depth", "input_every"},
    "DTSRNN": {"depth", "input_every"},
    "SLSTM": {"forget_bias"},
    "MinGRU": set(),
}


@pytest.mark.parametrize("name", [f"{name}{end}" for name in NAMES for end in ("", "Cell")])
def test_a_class_shows_what_its_cell_takes(name: str) -> None:
    cls, plain = getattr(rnnx, name), name.removeprefix("MI")
    kind = plain.removesuffix("Cell")
    signature = inspect.signature(cls).parameters
    common = {
        "in_features",
        "hidden_features",
        "norm",
        "init_scale",
        "input_scale",
        "dtype",
        "rngs",
    }
    options = {} if kind == "MinGRU" else {"integration": "mi_simple"}
    common |= {"integration", "mi_init", "orthogonal"} if options else set()
    assert signature.keys() == common | OWN[kind]
    if options:
        default = "mi" if name.startswith("MI") else "additive"
        assert signature["integration"].default == default
    module = cls(3, 4, **options, rngs=nnx.Rngs(0))
    assert module.cell == Cell(kind.lower(), **options)
    assert cls.__module__ == "rnnx.layers" and isinstance(module, getattr(rnnx, plain))
    assert all(f"  {keyword}: " in cls.__init__.__doc__ for keyword in OWN[kind])
    assert "= " in cls.__doc__  # an equation


def test_keywords_of_a_class_reach_its_cell_and_its_parameters() -> None:
    rhn = rnnx.MIRHN(
        3, 4, depth=2, coupled=False, transform_bias=-3.0, mi_init=(2.0, 3.0, 4.0), init_scale=0.1,
        input_scale=0.0, dtype=jnp.bfloat16, rngs=nnx.Rngs(0),
    )  # fmt: skip
    assert rhn.cell == Cell("rhn", "mi", depth=2, coupled=False)
    block = rhn.params[1]
    assert rhn.dtype == jnp.bfloat16 and (block["b"][4:8] == -3).all()
    assert (rhn.params[0]["beta1"] == 3).all() and not rhn.params[0]["W"].any()
    assert 0.05 < jnp.abs(block["U"]).max() <= 0.1
    assert rnnx.GRU(3, 4, reset_after=True, rngs=nnx.Rngs(0)).cell.reset_after
    every = rnnx.RHN(3, 4, depth=2, input_every=True, norm="layer", rngs=nnx.Rngs(0))
    assert all({"W", "gain_x", "gain_z"} <= block.keys() for block in every.params)
    lstm = rnnx.LSTMCell(3, 4, forget_bias=2.5, rngs=nnx.Rngs(0))
    assert (lstm.params[0]["b"][4:8] == 2.5).all()


@pytest.mark.parametrize(
    "name, options, error, message",
    [
        ("LSTM", {"depth": 2}, TypeError, "LSTM: got an unexpected keyword argument 'depth'"),
        ("MIGRUCell", {"coupled": True}, TypeError, "MIGRUCell: got an unexpected"),
        ("RHN", {"depth": 0}, ValueError, "depth must be at least 1"),
        ("RNN", {"integration": "im"}, ValueError, "unknown integration"),
        ("MinGRU", {"integration": "mi"}, TypeError, "MinGRU: got an unexpected"),
    ],
)
def test_what_a_cell_does_not_have_is_refused(name, options, error, message) -> None:
    with pytest.raises(error, match=message):
        getattr(rnnx, name)(3, 4, rngs=nnx.Rngs(0), **options)


def test_modules_pickle_and_split() -> None:
    layer = build("MIRHN")
    stored = pickle.loads(pickle.dumps(layer))
    merged = nnx.merge(*nnx.split(layer))
    assert type(stored) is type(merged) is rnnx.MIRHN
    for other in (stored, merged):
        assert jax.tree.all(jax.tree.map(np.array_equal, other.params, layer.params))
    # A reader's subclass has the signature of its own.
    mine = type("Mine", (rnnx.RNN,), {"__init__": lambda self, width: None})
    assert list(inspect.signature(mine).parameters) == ["width"]
    assert "lengths" in inspect.signature(layer).parameters


def test_everything_public_is_there() -> None:
    assert {*NAMES, *(f"{name}Cell" for name in NAMES), "Stack", "heads"} <= {*rnnx.__all__}
    assert {*rnnx.__all__} <= {*dir(rnnx)}
    for name in rnnx.__all__:
        assert getattr(rnnx, name) is not None
    with pytest.raises(AttributeError):
        rnnx.NoSuchCell  # noqa: B018


def test_layers_and_cells_compute_in_float64_given_it() -> None:
    """Values and gradients of three ways that share no backward pass."""
    with jax.enable_x64(True):
        xs = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4)))
        layer, step = build("MILSTM"), build("MILSTMCell", dtype="float64")
        variables = jax.tree.map(lambda p: jnp.asarray(p, "float64"), nnx.state(layer))
        start = jax.tree.map(lambda c: c + 0.5, layer(xs)[1])
        assert {c.dtype for c in start} == {xs.dtype} == {jnp.dtype("float64")}
        assert step.initialize_carry((3, 4))[0].dtype == jnp.float64

        def by_layer(layer, xs, start):
            return layer(xs, start)

        def by_nnx(cell, xs, start):
            carry, ys = nnx.RNN(cell, return_carry=True)(xs, initial_carry=start)
            return ys, carry

        def by_steps(cell, xs, start):
            ys = []
            for t in range(xs.shape[1]):
                start, y = cell(start, xs[:, t])
                ys.append(y)
            return jnp.stack(ys, 1), start

        def both(run, module):
            graphdef = nnx.graphdef(module)

            def loss(variables, xs, start):
                out = run(nnx.merge(graphdef, variables), xs, start)
                return sum(jnp.sum(jnp.sin(a)) for a in jax.tree.leaves(out)), out

            return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(variables, xs, start)

        (_, out), grads = both(by_layer, layer)
        assert {a.dtype for a in jax.tree.leaves((out, grads))} == {xs.dtype}
        for run, module in ((by_nnx, step), (by_steps, build("MILSTMCell"))):
            (_, theirs), bars = both(run, module)
            pairs = zip(jax.tree.leaves((out, grads)), jax.tree.leaves((theirs, bars)), strict=True)
            for a, b in pairs:
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("wide", ["xs", "carry", "mask"])
def test_one_float64_array_widens_all(wide: str) -> None:
    with jax.enable_x64(True):
        layer = build("RHN", dtype="bfloat16" if wide == "carry" else "float32")
        arrays = {"xs": (3, 2, 4), "carry": (3, 6), "mask": (3, 6)}
        arrays = {
            name: jnp.ones(shape, "float64" if name == wide else "float32")
            for name, shape in arrays.items()
        }

        def loss(xs, carry, mask):
            ys, (last,) = layer(xs, (carry,), mask=mask)
            assert ys.dtype == last.dtype == jnp.float64
            return ys.sum()

        of_layer = nnx.eval_shape(nnx.grad(lambda layer: layer(arrays["xs"])[0].sum()), layer)
        assert {g.dtype for g in jax.tree.leaves(of_layer)} == {jnp.dtype("float32")}
        for name, gradient in jax.grad(lambda a: loss(**a))(arrays).items():
            assert gradient.dtype == arrays[name].dtype and jnp.isfinite(gradient).all()
            assert gradient.any() == (name != "mask")


def test_a_product_of_float64_and_float32_loses_nothing() -> None:
    x, w = np.random.default_rng(0).standard_normal((2, 4, 4))
    w = w.astype("float32")
    with jax.enable_x64(True):
        for a, b in ((x, w), (w, x)):
            np.testing.assert_allclose(cells.matmul(a, b), a @ b, rtol=1e-12)


def test_inputs_without_a_batch_are_refused_in_the_layout_they_came_in() -> None:
    layer = rnnx.RHN(16, 8, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"xs must be \(batch, time, 16\), not \(16, 16\)"):
        layer(jnp.ones((16, 16)))
    with pytest.raises(ValueError, match=r"xs must be \(time, batch, 16\), not \(3, 4, 8\)"):
        rnnx.Stack(Cell("rnn"), 16, 8, rngs=nnx.Rngs(0))(jnp.ones((3, 4, 8)), time_major=True)
