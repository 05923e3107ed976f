"""Trains many runs of one config.

space.py        grids and search spaces, as they are written and as Optuna takes them
tuning.py       equal trials for each point of a grid, and which of them was best
ledger.py       trials, who runs them, their results: an Optuna study, locks and leases
storage.py      where the study is kept; leases.py: who runs a trial, for other machines
screen.py       the live table, or lines where there is no terminal
runner.py       starts, watches and ends the runs
processes.py    the process of a run, or of several; replicas.py: several as one program
__main__.py     the command
"""
