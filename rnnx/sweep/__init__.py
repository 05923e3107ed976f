"""Trains many runs of one config.

space.py        grids and search spaces, as they are written and as Optuna takes them
ledger.py       which trials there are, who runs which, what came of them: an Optuna study, locks
screen.py       the live table, or lines where there is no terminal
runner.py       trains the trials, a process each
__main__.py     the command
"""
