"""Runs an exported network step by step, with NumPy and onnxruntime only.

    from rnnx.runtime import Stream

    stream = Stream("net.step.onnx")      # of `python -m rnnx.export --format=onnx`
    y = stream.step(x)                    # one step; the state is kept
    many = Stream("net.step.onnx", streams=8)
    ys = many.step(xs)                    # (8, ...): eight streams side by side
    many.reset(3)                         # one of them starts again

JAX is not imported. A file is data: loading one runs no code of its author.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from rnnx.errors import UserError
from rnnx.exported import read_onnx

_TYPES = {"tensor(float)": np.float32, "tensor(int32)": np.int32}


class Stream:
    """A network fed one step at a time; it keeps the state between steps.

    Attributes:
      about: what the file says of itself: `spec` (vocabulary or scaling), `config`, the outputs'
        `meaning`, and more.
    """

    def __init__(self, file: Path | str, streams: int | None = None, threads: int = 1):
        """Loads a file.

        Args:
          file: a step, as `rnnx.export` writes it: `NAME.step.onnx`.
          streams: how many run side by side; None is one, without an axis for it.
          threads: of onnxruntime. More than one pays for wide networks only.

        Raises:
          UserError: when the file is not such a step, or damaged.
          ValueError: when streams or threads are below 1.
        """
        if threads < 1 or (streams is not None and streams < 1):
            raise ValueError(f"streams={streams} and threads={threads} must be at least 1")
        data, self.about = read_onnx(file)
        if self.about.get("function") != "step":
            raise UserError(
                f"{file} takes whole sequences: a Stream needs the step, NAME.step.onnx beside it"
            )
        self._single, rows = streams is None, streams or 1
        self._session = session(data, str(file), threads)
        # Tensors that onnxruntime reads and writes in place: no call allocates or copies.
        inputs = {given.name: given for given in self._session.get_inputs()}
        outputs = {given.name: given for given in self._session.get_outputs()}
        try:
            self._inputs, self._x = _tensor(inputs["inputs"], rows)
            self._outputs, self._y = _tensor(outputs["outputs"], rows)
            states = [inputs[f"state.{k}"] for k in range(len(inputs) - 1)]
            after = [outputs[f"next_state.{k}"].name for k in range(len(states))]
            pairs = [[_tensor(state, rows) for state in states] for _ in range(2)]
        except (KeyError, TypeError, ValueError, MemoryError):
            raise UserError(f"{file} lacks the inputs and outputs of a step") from None
        # The state after a step is the state before the next one: two sets take turns.
        self._states = [[array for array, _ in pair] for pair in pairs]
        self._bindings, self._turn = [], 0
        for before, then in ((0, 1), (1, 0)):
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("inputs", self._x)
            binding.bind_ortvalue_output("outputs", self._y)
            for k, state in enumerate(states):
                binding.bind_ortvalue_input(state.name, pairs[before][k][1])
                binding.bind_ortvalue_output(after[k], pairs[then][k][1])
            self._bindings.append(binding)
        symbols = self.about.get("symbols")
        self._symbols = symbols if isinstance(symbols, int) else None

    def step(self, inputs: Any) -> np.ndarray:
        """Reads one step of every stream.

        Args:
          inputs: (streams,) tokens, or (streams, features) numbers; without the first axis where
            there is one stream.

        Returns:
          What the network gives of that step, (streams, ...): an array of its own.

        Raises:
          ValueError: when inputs have another shape, or a token is not in the vocabulary.
          TypeError: when tokens are not integers.
        """
        x = self._inputs[0] if self._single else self._inputs
        if np.shape(inputs) != x.shape:
            raise ValueError(f"inputs must have the shape {x.shape}, not {np.shape(inputs)}")
        np.copyto(self._inputs, inputs, casting="same_kind")
        if self._symbols and any(not 0 <= x < self._symbols for x in self._inputs.tolist()):
            raise ValueError(f"inputs must be tokens from 0 to {self._symbols - 1}, not {inputs}")
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        return (self._outputs[0] if self._single else self._outputs).copy()

    def reset(self, which: int | None = None) -> None:
        """Puts a stream, or all of them, back to the zero state."""
        for state in self._states[self._turn]:
            state[... if which is None else which] = 0

    @property
    def state(self) -> list[np.ndarray]:
        """A copy of the state, (streams, n) each; may be set again, to go back to it."""
        return [state.copy() for state in self._states[self._turn]]

    @state.setter
    def state(self, values: list[np.ndarray]) -> None:
        for state, value in zip(self._states[self._turn], values, strict=True):
            state[...] = value


def session(data: bytes, where: str, threads: int = 1) -> onnxruntime.InferenceSession:
    """onnxruntime on the bytes of a file that was checked. Raises UserError if it refuses them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what fails raises
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"onnxruntime does not load {where}: {reason}") from None


def _tensor(like: Any, rows: int) -> tuple[np.ndarray, onnxruntime.OrtValue]:
    """Zeros for an input or output, and onnxruntime's view of the same memory."""
    _, *rest = like.shape
    array = np.zeros((rows, *rest), _TYPES[like.type])
    return array, onnxruntime.OrtValue.ortvalue_from_numpy(array)
