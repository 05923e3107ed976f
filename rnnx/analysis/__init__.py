"""Looks inside trained networks.

trace.py        states and gates, step by step
jacobian.py     Jacobians of whole transitions, eigenvalues, Gersgorin discs
gates.py        gates over a text
lesions.py      the rise of the loss without a depth or a group of units
memory.py       gradients through time, saturation, effective memory
interaction.py  how far the effect of an input depends on the state
attention.py    where a reader looks, with its pictures
numbers.py      all numbers about one run, as JSON
pictures.py     figures drawn from the numbers, with pictures_of_mi.py on canvas.py
page.py         one HTML page of the pictures
nearest.py      of networks that read sentences: the nearest sentences
"""
