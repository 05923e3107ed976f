def __getattr__(name):
    from rnnx import corpora

    return getattr(corpora, name)
