"""Trained networks outside of JAX: ONNX, StableHLO and safetensors.

    workdir -> functions -> a file a format -> run on held-out data -> compared -> kept, with a card

functions.py  the task's function with free batch and time, and one step of it
about.py      what a file says of itself; the readable names of weights
graph.py      a traced function as an ONNX graph
operators.py  what primitives of JAX are in ONNX: those that compute,
shapes.py     those that move elements,
loops.py      and calls and loops
onnx.py       ONNX files: written, quantised, run
stablehlo.py  StableHLO files: written, loaded, run
weights.py    safetensors: written, and read into a layer
parity.py     differences and scores on held-out data
card.py       the model card
__main__.py   the command

Files of the formats share no code but `functions.py` and `about.py`; which task a network has, only
the task itself knows (`Task.function`). What reads exported files without JAX is `rnnx.runtime`.
"""
