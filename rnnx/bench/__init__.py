"""Measures the speed and memory of training and inference, beside other implementations.

cases.py        the networks, their work in operations and bytes, and the bound from these
ours.py         rnnx itself: a training call, a token, the `full` evaluation
plain.py        the same in textbook JAX: `lax.scan` over stacked weights, differentiated by JAX
in_torch.py     the same in PyTorch: its own layers, hand-written eager, torch.compile
in_onnx.py      the exported step, in onnxruntime
latency.py      the time of single steps, call by call
rivals.py       runs each of these in a process of its own, in turns
__main__.py     the command: measures, prints the table, writes JSON
"""
