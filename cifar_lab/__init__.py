"""cifar-lab: a config-driven experiment runner for CIFAR-10 and data sets like it.

Shapes in docstrings: N images in a set, B in a batch, C channels, H W pixels, K classes,
L tokens, D width. Images are uint8 [N, 3, H, W] until a batch is made from them; labels
are int64 [N]; logits are float [B, K]. Accuracy is a fraction, time is in seconds.
"""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """``load_run``, imported when it is asked for: the version must not cost an import of numpy."""
    if name == "load_run":
        from cifar_lab.saved import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
