"""Looks inside trained networks.

trace.py        states and gates, step by step
jacobian.py     Jacobians of whole transitions, eigenvalues, Gersgorin discs, closed forms
gates.py        gates over a text
lesions.py      what a depth or a group of units is worth
memory.py       gradients through time, saturation, effective memory
numbers.py      all of it for one run, as JSON
pictures.py     drawn from the numbers
page.py         one HTML page
"""
