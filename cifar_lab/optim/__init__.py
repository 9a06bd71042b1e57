"""Optimisers and learning-rate schedules by name.

A new row is a builder and one line here. Builders are plain functions of typed keywords with
literal defaults, as those of the models; the reserved names are given by the run, not by a
person. Nothing heavy is imported here.
"""

OPTIMIZERS: dict[str, str] = {
    "adam": "cifar_lab.optim.optimizers:adam",
    "adamw": "cifar_lab.optim.optimizers:adamw",
    "sgd": "cifar_lab.optim.optimizers:sgd",
    "rmsprop": "cifar_lab.optim.optimizers:rmsprop",
    "sam": "cifar_lab.optim.sam:sam",
    "muon": "cifar_lab.optim.muon:muon",
    "muon_sgd": "cifar_lab.optim.muon_sgd:muon_sgd",
}

SCHEDULES: dict[str, str] = {
    "constant": "cifar_lab.optim.schedules:constant",
    "cosine": "cifar_lab.optim.schedules:cosine",
    "step": "cifar_lab.optim.schedules:step",
    "one_cycle": "cifar_lab.optim.schedules:one_cycle",
    "triangular": "cifar_lab.optim.schedules:triangular",
    "plateau": "cifar_lab.optim.schedules:plateau",
}

OPTIMIZER_RESERVED: tuple[str, ...] = ("params", "hidden")
SCHEDULE_RESERVED: tuple[str, ...] = ("lr", "total_steps", "steps_per_epoch")
