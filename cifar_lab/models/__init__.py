"""Networks by name: ``[B, 3, H, W]`` floats in, logits ``[B, K]`` out.

A new model is one file with a builder and one line in ``MODELS``. A builder is a plain function
of typed keywords with literal defaults (the schema is read from its source): int, float, bool,
str, ``X | None``, ``tuple[X, ...]`` or ``Literal``. Keywords named in ``RESERVED`` are given by
the data, not by a person; a builder takes those it needs. Nothing heavy is imported here.
"""

MODELS: dict[str, str] = {
    "small_cnn": "cifar_lab.models.small_cnn:small_cnn",
    "resnet18": "cifar_lab.models.resnet:resnet18",
}

ACTIVATIONS: dict[str, str] = {
    "relu": "torch.nn:ReLU",
    "leaky_relu": "torch.nn:LeakyReLU",
    "prelu": "torch.nn:PReLU",
    "relu6": "torch.nn:ReLU6",
    "elu": "torch.nn:ELU",
    "selu": "torch.nn:SELU",
    "gelu": "torch.nn:GELU",
    "silu": "torch.nn:SiLU",
    "mish": "torch.nn:Mish",
    "hardswish": "torch.nn:Hardswish",
    "softplus": "torch.nn:Softplus",
    "tanh": "torch.nn:Tanh",
    "sigmoid": "torch.nn:Sigmoid",
    "identity": "torch.nn:Identity",
}

RESERVED: tuple[str, ...] = ("num_classes", "input_size")
