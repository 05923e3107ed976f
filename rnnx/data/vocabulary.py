from rnnx.vocabulary import *
