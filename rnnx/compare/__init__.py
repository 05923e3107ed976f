"""Own data in, a verdict out: is a network worth it, and at what cost?

question.py     the data, the task and its config, from the command line
candidates.py   the networks that are compared
plan.py         what fits into the minutes
runs.py         the trainings, as sweeps
kinds.py        of each task: the loss of every test item, the floors, examples; with kind.py
                and forecasts.py
cost.py         speed of training, latency, memory
verdict.py      three answers, the control, the cheapest that is good enough; in sentences
findings.py     all of it as one dict
report.py       that dict as report.json, runs.csv, report.md and report.html
page.py         the page, with figures.py, drawing.py and words.py
comparison.py   from the plan to the report
__main__.py     the command
"""
