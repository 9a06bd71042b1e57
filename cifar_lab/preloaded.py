"""What every worker needs, imported once by the server that they are forked from: seconds, which no job then pays for."""

import warnings

with warnings.catch_warnings():
    # fvcore is built on torch.jit, which torch deprecates: nothing that a user could act on.
    warnings.filterwarnings("ignore", r"`torch\.jit\.")
    import fvcore.nn
    import sklearn.metrics
    import torch._dynamo  # by the first optimizer

    import cifar_lab.pipeline
    import cifar_lab.schema

__all__ = ["cifar_lab", "fvcore", "sklearn", "torch"]
