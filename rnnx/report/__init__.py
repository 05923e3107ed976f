"""Tables and plots of runs.

published.py    what the papers print, with how sure each number is
runs.py         runs read from workdirs and data files; grouped over seeds
tables.py       the tables
plots.py        the plots
__main__.py     the command
"""
