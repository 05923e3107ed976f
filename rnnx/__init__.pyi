"""Stub of `rnnx`, written by `python tests/test_stubs.py`."""

from . import cells as cells
from . import heads as heads
from . import layers as layers
from . import scan as scan
from .layers import DTRNN as DTRNN
from .layers import DTSRNN as DTSRNN
from .layers import GRU as GRU
from .layers import LSTM as LSTM
from .layers import MIGRU as MIGRU
from .layers import MILSTM as MILSTM
from .layers import MIRHN as MIRHN
from .layers import MIRNN as MIRNN
from .layers import RHN as RHN
from .layers import RNN as RNN
from .layers import SLSTM as SLSTM
from .layers import Cell as Cell
from .layers import DTRNNCell as DTRNNCell
from .layers import DTSRNNCell as DTSRNNCell
from .layers import GRUCell as GRUCell
from .layers import LinearRNN as LinearRNN
from .layers import LinearRNNCell as LinearRNNCell
from .layers import LSTMCell as LSTMCell
from .layers import MIGRUCell as MIGRUCell
from .layers import MILinearRNN as MILinearRNN
from .layers import MILinearRNNCell as MILinearRNNCell
from .layers import MILSTMCell as MILSTMCell
from .layers import MinGRU as MinGRU
from .layers import MinGRUCell as MinGRUCell
from .layers import MIRHNCell as MIRHNCell
from .layers import MIRNNCell as MIRNNCell
from .layers import RecurrentCell as RecurrentCell
from .layers import RecurrentLayer as RecurrentLayer
from .layers import RHNCell as RHNCell
from .layers import RNNCell as RNNCell
from .layers import SLSTMCell as SLSTMCell
from .layers import Stack as Stack

__all__: list[str]
__version__: str
