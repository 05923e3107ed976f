"""Own data in, a verdict out: is a network worth it, and at what cost?

statistics.py   losses, intervals, paired comparisons of models
verdict.py      three answers, the control, the cheapest that is good enough; in sentences
"""
