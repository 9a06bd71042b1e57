"""Mistakes that train well and mean nothing, found while a run is under way: each is an error that names its place.

They cost a walk over the model's modules or gradients, which the device does not notice. The one that looks at values
(``check_logits``) waits for the device once in a sitting.
"""

from collections.abc import Iterator

from torch import Tensor, nn

from cifar_lab.errors import ConfigError

GRADIENT_STEPS = 20
"""Steps within which every trainable parameter must have had a gradient; a block that is dropped at random gets one."""

_ROW_TOLERANCE = 0.01  # of a row's sum: what bf16 makes of a softmax
_NAMED = 3  # parameters or modules that an error lists
_MODAL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


class TrainingGuard:
    """Looks at the training of one sitting: once at its first batch, then at little more than flags.

    Args:
        model: What is trained.
    """

    def __init__(self, model: nn.Module):
        self._model = model
        self._is_first_batch = True
        self._trained: set[str] = set()
        self._without_gradient: list[str] = []
        self._steps = 0
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """See which parameters are to be trained in this epoch; those that join now must get a gradient too."""
        trained = [name for name, p in self._model.named_parameters() if p.requires_grad]
        if new := [name for name in trained if name not in self._trained]:
            self._without_gradient, self._steps = self._without_gradient + new, 0
        self._without_gradient = [name for name in self._without_gradient if name in trained]
        self._trained.update(trained)

    def first_batch(self, logits: Tensor) -> None:
        """Look at the logits [B, K] of the first batch that comes.

        Raises:
            ConfigError: If they are probabilities.
        """
        if self._is_first_batch:
            self._is_first_batch = False
            check_logits(logits)

    def gradients(self, *, is_last: bool) -> None:
        """Look for parameters without a gradient before each optimiser step, until every one has had one.

        Args:
            is_last: Whether this is the last step of an epoch.

        Raises:
            ConfigError: If one had none in ``GRADIENT_STEPS`` steps, or in a whole epoch that is shorter.
        """
        if not self._without_gradient:
            return
        parameters = dict(self._model.named_parameters())
        self._without_gradient = [name for name in self._without_gradient if parameters[name].grad is None]
        self._steps += 1
        if self._without_gradient and (is_last or self._steps >= GRADIENT_STEPS):
            raise ConfigError(
                f"no gradient reaches {_listed(self._without_gradient)}: the loss does not depend on it",
                hint="use it in the model's forward, remove it, or set requires_grad to False",
            )

    def mode(self, epoch: int) -> None:
        """See that the model trains in training mode; what is frozen as a whole may stay in evaluation mode.

        Raises:
            ConfigError: If the model, or a norm or dropout layer of it, does not.
        """
        idle = list(_idle(self._model, "the model"))
        if idle:
            raise ConfigError(
                f"in evaluation mode while training in epoch {epoch}: {_listed(idle)}",
                hint="something calls eval() or overrides train(); freeze a part by requires_grad=False on all its parameters",
            )


def check_logits(logits: Tensor) -> None:
    """Refuse a model that ends in a softmax, which cross-entropy would apply again: it trains, slowly and badly.

    Args:
        logits: [B, K].

    Raises:
        ConfigError: If every row is non-negative and sums to one.
    """
    values = logits.detach().float()
    sums = values.sum(1)
    if values.shape[1] > 1 and bool(((values >= 0).all() & ((sums - 1).abs() < _ROW_TOLERANCE).all()).item()):
        raise ConfigError(
            "the model answers with probabilities: every row of its first batch is non-negative and sums to 1",
            hint="leave out the final softmax; the loss is cross-entropy of logits and has one of its own",
        )


def check_still(model: nn.Module) -> None:
    """Refuse layers that, in evaluation, would answer by batch statistics or at random.

    Raises:
        ConfigError: If a norm or dropout layer is in training mode, or a batch norm keeps no running statistics.
    """
    awake = [name or "the model" for name, module in model.named_modules() if module.training and _has_modes(module)]
    if awake:
        raise ConfigError(
            f"in training mode during evaluation: {_listed(awake)}",
            hint="the model overrides train() or calls it in forward(); answers would depend on the batch or on chance",
        )
    norms = ((name, m) for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    stateless = [name or "the model" for name, norm in norms if norm.running_mean is None]
    if stateless:
        raise ConfigError(
            f"batch statistics at test time: {_listed(stateless)} keeps no running ones",
            hint="set track_running_stats=True, or use a norm that looks at one image at a time",
        )


def _has_modes(module: nn.Module) -> bool:
    """Whether a layer does something else in training; a person's own dropout is known by its name."""
    if isinstance(module, nn.modules.instancenorm._InstanceNorm) and not module.track_running_stats:
        return False
    return isinstance(module, _MODAL) or "dropout" in type(module).__name__.lower()


def _idle(module: nn.Module, name: str) -> Iterator[str]:
    """Names of what is in evaluation mode and should not be: the model itself, its norms and dropouts."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        return
    is_model = name == "the model"
    if not module.training and (is_model or _has_modes(module)):
        yield name
    for child_name, child in module.named_children():
        yield from _idle(child, child_name if is_model else f"{name}.{child_name}")


def _listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
