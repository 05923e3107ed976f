"""Tables and plots of runs.

published.py    what the papers print, with how sure each number is
runs.py         runs read from workdirs and data files; grouped over seeds
table.py        what a table is
tables.py       the tables
gaps.py         what a change of the network is worth
protocols.py    the same in each score of one protocol
significance.py losses, intervals, paired comparisons of models
plots.py        the plots
live.py         the page that follows a sweep; with state.py
__main__.py     the command
"""
