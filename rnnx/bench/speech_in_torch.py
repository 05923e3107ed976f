"""Speech in PyTorch on the bench: `nn.LSTM` both ways and `nn.CTCLoss`, from our parameters."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from rnnx import model
from rnnx.bench import ours
from rnnx.bench.cases import Case
from rnnx.bench.in_torch import DEVICE, gates_joined
from rnnx.tasks import network


class Network(nn.Module):
    """Layers that read both ways, and log probabilities of symbols, the blank first."""

    def __init__(self, case: Case):
        super().__init__()
        config = case.config
        _, params = model.split(network.build(config, case.spec))
        values = {name: torch.from_numpy(np.array(p)) for name, p in params.items()}
        self.layers = nn.LSTM(
            len(case.spec["scaling"]["mean"]), config.hidden_size, config.num_layers,
            bidirectional=True,
        )  # fmt: skip
        self.output = nn.Linear(2 * config.hidden_size, case.vocab_size)
        with torch.no_grad():
            for ours_name, end in (("layers", ""), ("backward", "_reverse")):
                for i in range(config.num_layers):
                    stem = f"stack.{ours_name}.{i}.blocks.0."
                    block = {name: values[stem + name] for name in "WUb"}
                    joined = gates_joined(block, config.hidden_size)
                    for name, value in (
                        ("weight_ih", joined["W"].T), ("weight_hh", joined["U"].T),
                        ("bias_ih", joined["b"]), ("bias_hh", torch.zeros_like(joined["b"])),
                    ):  # fmt: skip
                        getattr(self.layers, f"{name}_l{i}{end}").copy_(value)
                    # Our cells have one bias, not two that are added.
                    getattr(self.layers, f"bias_hh_l{i}{end}").requires_grad = False
            self.output.weight.copy_(values["output_weights"].T)
            self.output.bias.copy_(values["output_bias"])

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """xs (T, B, F) to log probabilities (T, B, V)."""
        return self.output(self.layers(xs)[0]).log_softmax(-1)


def train(case: Case) -> Callable[[], list[float]]:
    """One update: loss, gradient, clipped by global norm, SGD."""
    config, net = case.config, Network(case).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=ours.RATE, weight_decay=config.weight_decay)
    batch = {name: torch.from_numpy(a).to(DEVICE) for name, a in ours.batch_of(case).items()}
    xs, ctc = batch["inputs"].transpose(0, 1).contiguous(), nn.CTCLoss(reduction="sum")

    def call() -> list[float]:
        optimizer.zero_grad(set_to_none=True)
        cost = ctc(net(xs), batch["labels"], batch["lengths"], batch["label_lengths"])
        cost = cost / config.batch_size
        cost.backward()
        nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
        optimizer.step()
        return [cost.item()]

    return call


def hear(case: Case) -> Callable[[], list[float]]:
    """An utterance, read whole, to log probabilities."""
    net = Network(case).to(DEVICE)
    xs = torch.from_numpy(ours.batch_of(case)["inputs"][:1]).transpose(0, 1).to(DEVICE)

    @torch.inference_mode()
    def call() -> list[float]:
        return [net(xs)[0, 0, 0].item()]

    return call
