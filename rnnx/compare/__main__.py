"""Compares recurrent networks on data of your own: accuracy, training cost, latency; one verdict.

    python -m rnnx.compare --data=FILE --workdir=DIR [--task=forecast|classify|regress|text]

Trains an LSTM, a GRU and an RNN, each with Multiplicative Integration too, Recurrent Highway
Networks, minGRU and sLSTM, all of one size, each tuned with the same number of trials and then
trained with the same seeds. Simple predictors are scored first. Writes DIR/report.html, report.md,
report.json and runs.csv, and keeps the best network in DIR/winner, ready for rnnx.predict.

Forecasts   a CSV or Parquet file, one row a time; or --layout=wide, one series a row:
            --target=COLUMN[,..] --time=COLUMN --horizon=H [--season=S] [--group=COLUMN]
            [--covariates=..] [--known=..] [--test=FILE]
Classes     a UCR .tsv, a UEA .ts, an .npz with x and y, or a CSV with --group=ID --target=COLUMN;
            --task=regress for numbers instead of classes
Text        any text file

What is not said is found in the file, and printed. The plan is printed first, with what does not
fit into --minutes. The same command resumes.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from rnnx import cli
from rnnx.compare.candidates import CANDIDATES
from rnnx.compare.comparison import Comparison
from rnnx.compare.question import Question, from_flags
from rnnx.display import Display
from rnnx.errors import UserError

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("data", "", "the file with the data")
    config_flags.DEFINE_config_file("config", None, "instead of --data: an experiment, NAME or "
                                    "FILE.py, with :variant")  # fmt: skip
    flags.DEFINE_string("workdir", None, "where everything is kept; resumed if it holds some")
    flags.DEFINE_string("task", "", "forecast, classify, regress or text; empty: found")
    flags.DEFINE_float("minutes", 30.0, "how long all of it may take", lower_bound=0.1)
    flags.DEFINE_string("cells", "", f"which networks; empty: {','.join(CANDIDATES)}")
    flags.DEFINE_string("target", "", "column(s) to predict, separated by commas")
    flags.DEFINE_string("time", "", "column of times")
    flags.DEFINE_integer("horizon", 0, "forecast: steps ahead; 0: a season, or 12", lower_bound=0)
    flags.DEFINE_integer("season", 0, "forecast: steps of a season; 0: found; 1: none",
                         lower_bound=0)  # fmt: skip
    flags.DEFINE_string("group", "", "column that tells series or sequences apart")
    flags.DEFINE_string("covariates", "", "forecast: columns known up to the present")
    flags.DEFINE_string("known", "", "forecast: columns known ahead, such as holidays")
    flags.DEFINE_enum("layout", "long", ["long", "wide"], "one row a time, or one series a row")
    flags.DEFINE_string("test", "", "a second file with the test part")
    flags.DEFINE_integer("stride", 1, "forecast: score from every so many steps", lower_bound=1)
    flags.DEFINE_enum("level", "char", ["word", "char", "byte"], "text: its symbols")
    flags.DEFINE_integer("param_budget", 0, "parameters of each network; 0: those of an LSTM of 64 "
                         "units, for text of 128", lower_bound=0)  # fmt: skip
    flags.DEFINE_integer("trials", 8, "tuning trials of each network", lower_bound=1)
    flags.DEFINE_integer("seeds", 6, "seeds of each network; fewer than six decide nothing",
                         lower_bound=2)  # fmt: skip
    flags.DEFINE_integer("epochs", 60, "the most epochs of a run", lower_bound=1)
    flags.DEFINE_float("margin", 0.02, "the least gain that is worth it, a share of the "
                       "reference's error", lower_bound=0.0, upper_bound=1.0)  # fmt: skip
    flags.DEFINE_integer("workers", 0, "trainings side by side; 0: one a core, one a GPU",
                         lower_bound=0)  # fmt: skip


def main() -> None:
    values = flags.FLAGS
    if not values.workdir:
        raise UserError("--workdir=DIR is missing: the folder to keep everything in")
    display = Display()
    question: Question = from_flags(values, display.print)
    Comparison(question, Path(values.workdir).expanduser(), display).run()


if __name__ == "__main__":
    define_flags()
    cli.run(main, __doc__)
