"""Trains many runs of one config.

space.py        grids and search spaces, as they are written and as Optuna takes them
ledger.py       trials, who runs them, their results: an Optuna study and locks
screen.py       the live table, or lines where there is no terminal
runner.py       trains each trial in a process of its own
__main__.py     the command
"""
