"""Networks by name: ``[B, 3, H, W]`` floats in, logits ``[B, K]`` out.

A new model is one file with a builder and one line in ``MODELS``. A builder is a plain function
of typed keywords with literal defaults (the schema is read from its source): int, float, bool,
str, ``X | None``, ``tuple[X, ...]`` or ``Literal``. Keywords named in ``RESERVED`` are given by
the data, not by a person; a builder takes those it needs. Nothing heavy is imported here.

A network may have a method ``prepare(images)``: it is shown normalized training images once,
before the first step of a fresh run, and sets from them what is computed and not learned.

A network of which parts are trained in some epochs only has a method ``begin_epoch(epoch)``, which sets
``requires_grad``; epochs count from 1. What is to be trained in any epoch needs a gradient when it is built.

A builder that declares ``weights: str = "none"`` builds untrained all the same: the run (``pretrained.py``)
reads the file that the keyword names and fills everything but ``head`` from it. One that declares
``freeze: Literal["none", "features"]`` returns a network with ``frozen = True`` for features that are neither
trained nor change in training mode. If it has a method ``embed(images) -> [B, D]`` and takes its answers in
place of images, they are computed once a run (``frozen.py``).
"""

MODELS: dict[str, str] = {
    "small_cnn": "cifar_lab.models.small_cnn:small_cnn",
    "resnet18": "cifar_lab.models.resnet:resnet18",
    "mobilenet_like": "cifar_lab.models.mobilenet_like:mobilenet_like",
    "separable_densenet": "cifar_lab.models.densenet:separable_densenet",
    "few_param_resnet": "cifar_lab.models.few_param_resnet:few_param_resnet",
    "tf_cnn": "cifar_lab.models.plain_cnns:tf_cnn",
    "dense_dnn": "cifar_lab.models.dense_dnn:dense_dnn",
    "custom_cnn": "cifar_lab.models.plain_cnns:custom_cnn",
    "mobilenet_v2": "cifar_lab.models.torchvision_nets:mobilenet_v2",
    "traditional_cnn": "cifar_lab.models.plain_cnns:traditional_cnn",
    "alexnet_like": "cifar_lab.models.alexnet_like:alexnet_like",
    "efficientnet_b0": "cifar_lab.models.torchvision_nets:efficientnet_b0",
    "vit": "cifar_lab.models.vit:vit",
    "speednet": "cifar_lab.models.speednet:speednet",
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
