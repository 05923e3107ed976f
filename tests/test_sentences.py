"""Sentences with those around them: split, parted, trained on; the network against NumPy."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from conftest import QUIET, call_module, killed_after, lines_of, outcome, train
from flax import nnx
from ml_collections import ConfigDict

from rnnx import config as configs
from rnnx import model, tasks
from rnnx.cells import Cell
from rnnx.data import books
from rnnx.data.sentences import split, words
from rnnx.data.vocabulary import Vocabulary
from rnnx.errors import UserError
from rnnx.tasks.skip_thought import SkipThought

# ---------------------------------------------------------------------------- splitting


def test_sentences_end_inside_quotations_that_are_not_closed() -> None:
    text = """\
"Who is Mr. Holmes?" said he. 'Ah! (The
house.) Can any enter?' "Yes," she said. It was

The end
"""
    assert list(split(text)) == [
        '"Who is Mr. Holmes?"', "said he.", "'Ah!", "(The house.)", "Can any enter?'",
        '"Yes," she said.', "It was", "The end",
    ]  # fmt: skip
    opened = "'He went. " + "She came. " * 50
    assert len(list(split(opened))) == 51


def test_words_are_parted_as_in_the_labelled_sets() -> None:
    assert words("Don't say it's 3,000.5 - he'd... CAN\u2019T he?! _No_") == [
        "do", "n't", "say", "it", "'s", "3,000.5", "-", "he", "'d", "...", "ca", "n't", "he", "?",
        "!", "no",
    ]  # fmt: skip
    assert words("well-bred o'clock caf\u00e9 \u201c3rd\u201d--") == [
        "well-bred", "o'clock", "caf\u00e9", '"', "3rd", '"', "--",
    ]  # fmt: skip
    assert words("I'm we're they've she'll \u2013 we\u2014\u2014you") == [
        "i", "'m", "we", "'re", "they", "'ve", "she", "'ll", "-", "we", "--", "you",
    ]  # fmt: skip
    parted = "it 's do n't ! -- film ( 1993 )"
    assert words(parted) == parted.split()
    assert words(" \n") == []


# ---------------------------------------------------------------------------- books


def book(*lengths: int, first: int = 0) -> list[str]:
    """Sentences of so many words, each word another one."""
    found, n = [], first
    for length in lengths:
        found.append(" ".join(f"w{n + i}" for i in range(length)))
        n += length
    return found


def test_neighbours_are_of_the_same_book_and_long_sentences_break_the_chain() -> None:
    one, two = book(2, 2, 2, 4, 1, 1, 1), book(2, 2, first=50)
    known = books.vocabulary([one, two], 100)
    shown = [
        tuple(known.decode(ids).replace("\n", "") for ids in triple)
        for own in (one, two)
        for triple in books.triples(own, known, 3)
    ]
    # The fourth is too long: no triple has it. The second book has two sentences only.
    assert shown == [tuple(one[0:3]), tuple(one[4:7])]
    assert books.triples(one, known, 4)[1][1].tolist() == known.encode(one[2] + "\n").tolist()
    assert books.triples(book(3), known, 3) == []


def test_the_vocabulary_is_by_frequency_and_ends_where_it_is_told() -> None:
    known = books.vocabulary([["b b a c", "c b"], ["d"]], 5)
    assert known.symbols == ("<eos>", "<unk>", "b", "c", "a")
    assert known.encode("b d\n").tolist() == [2, 1, 0]
    assert books.vocabulary([["z b a", "z"]], 9).symbols[2:] == ("z", "a", "b")


def test_the_last_books_are_held_out_or_the_last_sentences_of_few() -> None:
    names = [f"{i:02d}" for i in range(45)]
    found = books.parts(books.Books({name: [name] for name in names}, {}))
    assert found["train"][-1] == ["40"]
    assert found["valid"] == [["41"], ["42"]] and found["test"] == [["43"], ["44"]]
    whole = book(*[1] * 40)
    found = books.parts(books.Books({"a": whole}, {}))
    assert found == {"train": [whole[:36]], "valid": [whole[36:38]], "test": [whole[38:]]}


def write_books(folder: Path, count: int = 4) -> Path:
    """Books with something to learn: a sentence names the day, the next one the day after."""
    folder.mkdir(exist_ok=True)
    days = ["monday", "tuesday", "friday", "sunday"]
    rng = np.random.default_rng(0)
    for k in range(count):
        lines, day = [], k
        for _ in range(60):
            lines.append(f"On {days[day % 4]} came {rng.choice(['rain', 'wind', 'snow'])}.")
            day += 1
        (folder / f"{k}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_a_folder_is_read_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    found = books.read(str(write_books(tmp_path / "books")), "", told.append)
    assert list(found.books) == ["0.txt", "1.txt", "2.txt", "3.txt"] == list(found.sums)
    assert len(found.books["1.txt"]) == 60 and len(told) == 4
    assert found.books["0.txt"][0].startswith("on monday came ")
    again = books.read(str(tmp_path / "books"), "", told.append)
    assert again == found and len(told) == 4


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_they_like(end: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(f"It was{end}dark{end}{end}The end".encode())
    found = books.read(str(tmp_path / "a.txt"), "", QUIET.print)
    assert found.books == {"a.txt": ["it was dark", "the end"]}


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda home: home.mkdir(), "holds no texts"),
        (lambda home: None, "is no file or folder: name a text"),
        (lambda home: home.write_bytes(b"a\xff"), "is not UTF-8"),
        (lambda home: home.write_text("\n \n"), "has no sentence"),
        (lambda home: home.write_text("One sentence."), "is too short: its train part has no"),
    ],
)
def test_bad_books_are_told_in_one_line(make, told: str, tmp_path: Path) -> None:
    make(tmp_path / "books")
    done = call_module("train", "--config=skip_thought:novels", f"--workdir={tmp_path / 'run'}",
                       f"--config.corpus={tmp_path / 'books'}")  # fmt: skip
    assert done.returncode == 2 and told in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_novels_are_told_with_their_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"100_english_novels into .*novels"):
        books.read("novels", str(tmp_path), QUIET.print)


def test_dropout_is_refused() -> None:
    config = configs.default("sentences")
    config.drop_i = 0.1
    with pytest.raises(UserError, match="has no drop_i"):
        tasks.get("sentences").check(config)


# ---------------------------------------------------------------------------- the network

V, M, N = 7, 3, 4
BEFORE, SOURCE, AFTER = [2, 3, 0], [4, 1, 5, 0], [6, 0]


def batch_of(*triples: tuple) -> dict[str, np.ndarray]:
    """Triples as a batch, with words behind the ends that must not matter."""
    batch = {}
    for name, parts in zip(("before", "inputs", "after"), zip(*triples, strict=True), strict=True):
        batch[name] = np.full((len(parts), 5), 2, np.int32)
        for row, ids in zip(batch[name], parts, strict=True):
            row[: len(ids)] = ids
        batch[f"{name}_lengths"] = np.array([len(ids) for ids in parts], np.int32)
    return batch | {"weight": np.ones(len(triples), np.float32)}


def network(bidirectional: bool = False, dtype: str = "float64") -> SkipThought:
    cell = Cell("gru", "mi", reset_after=True)
    return SkipThought(cell, V, M, N, bidirectional=bidirectional, init_scale=0.5, dtype=dtype,
                       mi_init=(1.2, 0.7, 0.9), rngs=nnx.Rngs(0))  # fmt: skip


def gru(p: dict, name: str, mi: bool, xs: np.ndarray, n: int) -> np.ndarray:
    """States after each step, from the paper's equations with the reset gate behind the product."""
    vectors = ("W", "U", "b", *(("alpha", "beta1", "beta2") if mi else ()))
    gates, candidate = ({v: p[f"{name}.blocks.{k}.{v}"] for v in vectors} for k in (0, 1))

    def meet(own: dict, wx: np.ndarray, uh: np.ndarray) -> np.ndarray:
        product = own["alpha"] * wx * uh + own["beta1"] * uh + own["beta2"] * wx if mi else wx + uh
        return product + own["b"]

    h, found = np.zeros(n, xs.dtype), []
    for x in xs:
        ru = reference.sigmoid(meet(gates, x @ gates["W"], h @ gates["U"]))
        r, u = ru[:n], ru[n:]
        g = np.tanh(meet(candidate, x @ candidate["W"], r * (h @ candidate["U"])))
        h = u * h + (1 - u) * g
        found.append(h)
    return np.array(found)


def nats_of(p: dict, triple: tuple, bidirectional: bool) -> np.ndarray:
    """The cost of a triple, by the definition."""
    before, source, after = triple
    xs = p["embedding"][source]
    h = gru(p, "stack.layers.0", True, xs, N)[-1]
    if bidirectional:
        h = np.concatenate([h, gru(p, "stack.backward.0", True, xs[::-1], N)[-1]])
    total = 0
    for side, ids in (("before", before), ("after", after)):
        xs = np.concatenate([np.zeros((1, M)), p["embedding"][ids[:-1]]])
        xs = np.concatenate([xs, np.tile(h, (len(ids), 1))], axis=1)
        ys = gru(p, f"{side}.layers.0", False, xs, len(h))
        logits = ys @ p["softmax_weights"] + p["softmax_bias"]
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total = total - log_p[np.arange(len(ids)), ids].sum()
    return total


@pytest.mark.parametrize("bidirectional", [False, True])
def test_cost_and_gradients_are_those_of_the_equations(bidirectional: bool) -> None:
    """All parameters, by a complex step: exact to rounding."""
    triples = (BEFORE, SOURCE, AFTER), (AFTER, [3, 0], [5, 5, 2, 4, 0])
    with jax.enable_x64(True):
        graphdef, params = model.split(network(bidirectional))
        rng = np.random.default_rng(0)
        params = {
            name: jnp.asarray(p + 0.3 * rng.standard_normal(p.shape), jnp.float64)
            for name, p in params.items()
        }
        task, batch = tasks.get("sentences"), batch_of(*triples)

        def cost(params: dict) -> tuple:
            costs, _, sums = task.cost(model.merge(graphdef, params), batch, (), None)
            return costs.sum(), (costs, sums)

        run = jax.jit(jax.value_and_grad(cost, has_aux=True))
        (_, (costs, sums)), gradients = run(params)
        plain = {name: np.asarray(p) for name, p in params.items()}
        expected = [nats_of(plain, triple, bidirectional) for triple in triples]
        np.testing.assert_allclose(costs, expected, rtol=1e-12)
        np.testing.assert_allclose(sums["nll"][0], sum(expected), rtol=1e-12)
        assert float(sums["nll"][1]) == 3 + 2 + 2 + 5
        for name, p in plain.items():
            places = list(np.ndindex(p.shape))
            for at in (places[i] for i in rng.permutation(len(places))[:12]):
                moved = p.astype(complex)
                moved[at] += 1e-30j
                slope = sum(nats_of(plain | {name: moved}, t, bidirectional) for t in triples)
                assert abs(gradients[name][at] - slope.imag / 1e-30) < 1e-9, (name, at)


def test_an_empty_row_of_a_batch_costs_nothing() -> None:
    batch = batch_of((BEFORE, SOURCE, AFTER), ([2, 0], [2, 0], [2, 0]))
    for name in ("before", "inputs", "after"):
        batch[f"{name}_lengths"][1] = 0
    batch["weight"][1] = 0
    costs, _, sums = tasks.get("sentences").cost(network(dtype="float32"), batch, (), None)
    assert costs[0] > 0 and costs[1] == 0 and float(sums["nll"][1]) == 5


def test_drawn_words_stand_for_all_on_average() -> None:
    """All rare words drawn: the whole softmax. Fewer: its sum on average, in the cost of each
    word, frequent or not."""
    net, batch = network(dtype="float32"), batch_of((BEFORE, SOURCE, AFTER), (AFTER, AFTER, BEFORE))
    ys = jax.random.normal(jax.random.key(0), (5, N))
    words, few = jnp.array([0, 1, 2, 5, 6]), 2
    log_p = jax.nn.log_softmax(net.logits(ys))[jnp.arange(5), words]
    pairs = [net.sampled(ys, words, jnp.array(pair)) for pair in itertools.combinations(
        range(few, V), few)]  # fmt: skip
    own = net.logits(ys)[jnp.arange(5), words]
    sums = jnp.mean(jnp.exp(jnp.stack(pairs) + own), axis=0)
    np.testing.assert_allclose(jnp.log(sums) - own, -log_p, rtol=1e-5)
    half = SkipThought(Cell("gru"), 6, M, N, rngs=nnx.Rngs(1))
    batch["before"], batch["after"] = batch["before"] % 6, batch["after"] % 6
    whole, drawn = (
        jax.jit(nnx.value_and_grad(lambda net, d=d: net.nll(batch, d).sum()))(half)
        for d in (None, jnp.array([5, 3, 4]))
    )
    np.testing.assert_allclose(drawn[0], whole[0], rtol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (drawn[1], whole[1])), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_input_scale_is_that_of_all_matrices_but_u() -> None:
    """As of the reader: what starts wider than init_scale allows is no U."""
    net = SkipThought(Cell("gru"), 50, M, N, init_scale=0.01, input_scale=1.0, rngs=nnx.Rngs(0))
    wide = {
        name.rpartition(".")[2]: bool(abs(p).max() > 0.01)
        for name, p in model.split(net)[1].items()
        if p.ndim == 2
    }
    assert wide == {"U": False, "W": True, "embedding": True, "softmax_weights": True}


def test_words_that_are_drawn_are_rare_ones() -> None:
    """Each once; none where the whole softmax costs no more."""
    task, net = tasks.get("sentences"), SkipThought(Cell("gru"), 10, M, N, rngs=nnx.Rngs(0))
    config, rows = configs.default("sentences"), jnp.arange(2)
    for few in (1, 3, 4):
        config.softmax_sample = few
        drawn = task.masks(config, net, jax.random.key(few), rows, {}).tolist()
        assert len(set(drawn)) == len(drawn) == few and all(few <= i < 10 for i in drawn)
    for few in (0, 5):
        config.softmax_sample = few
        assert task.masks(config, net, jax.random.key(0), rows, {}) is None


def test_words_are_counted_up_to_the_end_of_each_sentence(tmp_path: Path) -> None:
    """Targets of batches, and the simple answer, over as much as is scored."""
    text = "Rain came.\n\nIt rained on and on and on.\n\nWe went.\n\n"
    (tmp_path / "a.txt").write_text(25 * text + "Wind came, too.")
    task, config = tasks.get("sentences"), small(tmp_path / "a.txt")
    dataset = task.load(config, QUIET.print)
    written = {
        name: [
            np.concatenate([split.each(side)[i][: split.whole[f"{side}_lengths"][i]]
                            for side in ("before", "after")])
            for i in range(len(split))
        ]
        for name, split in dataset.splits.items()
    }  # fmt: skip
    counts = np.bincount(np.concatenate(written["train"]), minlength=dataset.spec.size) + 1
    for cap in (0, 1):
        config.eval_tokens = cap
        scored = np.concatenate(written["test"][: cap or None])
        batches = task.batches(config, dataset, "test", "full", slice(None))
        assert batches.targets == len(scored)
        found = task.baselines(config, dataset, "test")["word frequencies"]
        assert found == pytest.approx(-np.log(counts / counts.sum())[scored].mean())
    batches = task.batches(config, dataset, "train", "train", slice(None))
    assert batches.targets == sum(map(len, written["train"]))


# ---------------------------------------------------------------------------- runs


def small(folder: Path, **fields) -> ConfigDict:
    config = configs.default("sentences")
    config.update(
        {
            "corpus": str(folder), "cell": "gru", "integration": "mi", "reset_after": True,
            "hidden_size": 12, "embed_size": 6, "vocab_size": 20, "init_scale": 0.2,
            "batch_size": 16, "epochs": 2, "optimizer": "adam", "learning_rate": 0.02,
        }
        | fields
    )  # fmt: skip
    return config


def test_training_learns_what_comes_before_and_after(tmp_path: Path) -> None:
    folder = write_books(tmp_path / "books", 5)
    result = train(small(folder, epochs=12, learning_rate=0.05), tmp_path / "run")
    task = tasks.get("sentences")
    dataset = task.load(small(folder), QUIET.print)
    assert dataset.sizes == (3 * 58, 58, 58)  # of 60 in a book: none looks into another
    known = task.baselines(small(folder), dataset, "test")
    assert isinstance(dataset.spec, Vocabulary) and set(dataset.sums) == {
        f"{k}.txt" for k in range(5)
    }
    # Of 6 words, one is any of three: .18 nats. Without the sentence between, another is one of
    # four days: .41.
    assert result["test"]["nll"] < 0.37 < known["word frequencies"] < known["uniform"]
    assert result["test"]["ppl"] == pytest.approx(np.exp(result["test"]["nll"]))
    assert result["test"]["words"] == sum(
        dataset.splits["test"].whole[f"{side}_lengths"].sum() for side in ("before", "after")
    )


def test_a_killed_run_ends_with_the_same_numbers(tmp_path: Path, every_epoch_saved: None) -> None:
    config = small(write_books(tmp_path / "books"), softmax_sample=4)
    whole = train(config, tmp_path / "whole")
    killed_after(config, tmp_path / "killed", 9)
    again = train(config, tmp_path / "killed")
    assert outcome(again) == outcome(whole)
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
