"""Tables and plots of runs.

published.py    what the papers print, with how sure each number is
runs.py         runs read from workdirs and data files; grouped over seeds
tables.py       the tables
gaps.py         what a change of the network is worth
significance.py losses, intervals, paired comparisons of models
plots.py        the plots
live.py         the page that follows a sweep; with state.py
__main__.py     the command
"""
