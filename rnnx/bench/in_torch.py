"""PyTorch on the bench: `nn.LSTM`, `nn.GRU`, and hand-written steps for the other cells.

The hand-written step computes input terms for the whole window at once, and all gates in one
`addmm` or `linear`, as careful users would. Parameters are those of rnnx, so the first losses must
agree.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rnnx import config as configs
from rnnx import model
from rnnx.bench import ours
from rnnx.bench.cases import TEXT_STEPS, Case
from rnnx.tasks import network

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Network(nn.Module):
    """The model of a case, around one of three recurrences.

    Args:
      form: `layer` (nn.LSTM, nn.GRU), `addmm` (weights (n, G n), as in rnnx) or `linear` (weights
        (G n, n), as PyTorch keeps them).
      compiled: pass the time step through `torch.compile`.
    """

    def __init__(self, case: Case, form: str, compiled: bool = False):
        super().__init__()
        config = case.config
        self.vocab_size, self.form, self.one_hot = case.vocab_size, form, config.one_hot
        self.cell = configs.cell_of(config)
        _, params = model.split(network.build(config, case.spec))
        values = {name: torch.from_numpy(np.array(p)) for name, p in params.items()}
        if not config.one_hot:
            self.embedding = nn.Parameter(values["embedding"])
        if not config.tied:
            self.softmax = nn.Parameter(values["softmax_weights"].T.contiguous())
        self.softmax_bias = nn.Parameter(values["softmax_bias"])
        blocks = [
            {k.rsplit(".", 1)[1]: v for k, v in values.items() if f"blocks.{i}." in k}
            for i in range(len(self.cell.blocks))
        ]
        if form == "layer":
            self._use_layer(blocks, config.hidden_size)
        else:
            if form == "linear":
                blocks = [b | {"U": b["U"].T.contiguous()} for b in blocks]
            self.blocks = nn.ModuleList(nn.ParameterDict(b) for b in blocks)
        self.step = torch.compile(self._step) if compiled else self._step

    def _use_layer(self, blocks: list[dict], n: int) -> None:
        """Fills nn.LSTM or nn.GRU; PyTorch's gates are i, f, g, o and r, z, n."""
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[self.cell.kind]
        self.layer = kind(self.vocab_size, n)
        if self.cell.kind == "lstm":
            joined = gates_joined(blocks[0], n)
        else:
            joined = {k: torch.cat([block[k] for block in blocks], -1) for k in "WUb"}
        with torch.no_grad():
            self.layer.weight_ih_l0.copy_(joined["W"].T)
            self.layer.weight_hh_l0.copy_(joined["U"].T)
            self.layer.bias_ih_l0.copy_(joined["b"])
            self.layer.bias_hh_l0.zero_()

    def zero_carry(self, batch_size: int, n: int) -> Any:
        zero = torch.zeros(batch_size, n, device=DEVICE)
        if self.form == "layer":
            return (zero[None], zero[None]) if self.cell.kind == "lstm" else zero[None]
        return (zero,) * self.cell.num_states

    def forward(self, tokens: torch.Tensor, carry: Any) -> tuple[torch.Tensor, Any]:
        """tokens (T, B) to logits (T, B, V)."""
        if self.one_hot:
            xs = F.one_hot(tokens, self.vocab_size).float()
        else:
            xs = F.embedding(tokens, self.embedding)
        if self.form == "layer":
            ys, carry = self.layer(xs, carry)
        else:
            # unbind, not an index a step: each index would get a gradient of the whole window.
            wx = [(xs @ b["W"]).unbind() if "W" in b else [None] * len(xs) for b in self.blocks]
            ys = []
            for t in range(len(xs)):
                carry = self.step([w[t] for w in wx], carry)
                ys.append(carry[0])
            ys = torch.stack(ys)
        return F.linear(ys, self.softmax if hasattr(self, "softmax") else self.embedding,
                        self.softmax_bias), carry  # fmt: skip

    def _pre(self, k: int, z: torch.Tensor, wx: Any, scale: Any = None) -> tuple:
        """Gate pre-activations of block k."""
        b, gates = self.blocks[k], len(self.cell.blocks[k])
        if self.cell.integration == "additive" and scale is None:
            bias = b["b"] if wx is None else wx + b["b"]
            if self.form == "addmm":
                return torch.addmm(bias, z, b["U"]).chunk(gates, 1)
            if wx is None:
                return F.linear(z, b["U"], bias).chunk(gates, 1)
            return (F.linear(z, b["U"]) + bias).chunk(gates, 1)
        uz = z @ b["U"] if self.form == "addmm" else F.linear(z, b["U"])
        uz = uz if scale is None else scale * uz
        if wx is None or self.cell.integration == "additive":
            a = uz + b["b"] if wx is None else uz + wx + b["b"]
        else:
            a = b["alpha"] * wx * uz + b["beta1"] * uz + b["beta2"] * wx + b["b"]
        return a.chunk(gates, 1)

    def _step(self, wx: list, carry: tuple) -> tuple:
        """One time step of rnn, lstm, gru (reset after the product) or rhn (coupled)."""
        kind = self.cell.kind
        if kind == "rnn":
            (a,) = self._pre(0, carry[0], wx[0])
            return (torch.tanh(a),)
        if kind == "lstm":
            h, c = carry
            i, f, o, z = self._pre(0, h, wx[0])
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(z)
            return torch.sigmoid(o) * torch.tanh(c), c
        if kind == "gru":
            (h,) = carry
            r, u = (torch.sigmoid(a) for a in self._pre(0, h, wx[0]))
            (g,) = self._pre(1, h, wx[1], scale=r)
            return (u * h + (1 - u) * torch.tanh(g),)
        (s,) = carry
        for l in range(self.cell.depth):
            h, t = self._pre(l, s, wx[l])
            t = torch.sigmoid(t)
            s = torch.tanh(h) * t + s * (1 - t)
        return (s,)


def gates_joined(block: dict[str, torch.Tensor], n: int) -> dict[str, torch.Tensor]:
    """W, U and b of our LSTM, gates i, f, o, z, in PyTorch's order: i, f, g, o."""
    i, f, o, z = (slice(g * n, (g + 1) * n) for g in range(4))
    return {k: torch.cat([v[..., g] for g in (i, f, z, o)], -1) for k, v in block.items()}


def train(case: Case, form: str, compiled: bool = False) -> Callable[[], list[float]]:
    """One update: loss, gradient, clipped by global norm, SGD."""
    config = case.config
    net = Network(case, form, compiled).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=ours.RATE, weight_decay=config.weight_decay)
    carry = net.zero_carry(config.batch_size, config.hidden_size)
    x, y = (torch.from_numpy(np.ascontiguousarray(a.T)).long().to(DEVICE)
            for a in ours.window_of(case))  # fmt: skip

    def call() -> list[float]:
        nonlocal carry
        optimizer.zero_grad(set_to_none=True)
        logits, after = net(x, carry)
        cost = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum")
        cost = cost / config.batch_size
        cost.backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
        optimizer.step()
        carry = tuple(c.detach() for c in after) if isinstance(after, tuple) else after.detach()
        return [cost.item()]

    return call


def token(case: Case, form: str, compiled: bool = False) -> Callable[[], list[float]]:
    """Reads one token and returns the next one's logits."""
    net = Network(case, form, compiled).to(DEVICE)
    carry = net.zero_carry(1, case.config.hidden_size)
    first = torch.ones(1, 1, dtype=torch.long, device=DEVICE)

    @torch.inference_mode()
    def call() -> list[float]:
        nonlocal carry
        logits, carry = net(first, carry)
        return [logits[0, 0, 0].item()]

    return call


def write(case: Case, form: str, compiled: bool = False) -> Callable[[], list[float]]:
    """Writes TEXT_STEPS tokens after the first one, always the likeliest."""
    net = Network(case, form, compiled).to(DEVICE)
    zero = net.zero_carry(1, case.config.hidden_size)

    @torch.inference_mode()
    def call() -> list[float]:
        token, carry, written = torch.ones(1, 1, dtype=torch.long, device=DEVICE), zero, []
        for _ in range(TEXT_STEPS):
            logits, carry = net(token, carry)
            token = logits.argmax(-1)
            written.append(token)
        return torch.cat(written).flatten().tolist()

    return call


def text(case: Case, form: str, compiled: bool = False) -> Callable[[], list[float]]:
    """A piece of text at batch 1, scored."""
    net = Network(case, form, compiled).to(DEVICE)
    tokens = np.random.default_rng(0).integers(0, case.vocab_size, TEXT_STEPS + 1)
    tokens = torch.from_numpy(tokens).to(DEVICE)
    zero = net.zero_carry(1, case.config.hidden_size)

    @torch.inference_mode()
    def call() -> list[float]:
        logits, _ = net(tokens[:-1, None], zero)
        return [F.cross_entropy(logits[:, 0], tokens[1:]).item()]

    return call
