"""One optimiser step as training makes it, for whoever measures what a step costs."""

import torch
from torch import Tensor, nn

from cifar_lab.config import TrainConfig
from cifar_lab.engine.predict import Sums, mean_loss, mixed_precision
from cifar_lab.engine.stages import begin_epoch
from cifar_lab.engine.state import build_scaler
from cifar_lab.engine.twopass import build_second_pass


class TrainingStep:
    """Forward pass, loss, backward pass and update of one batch; both passes of an optimiser that wants two.

    Args:
        model: On ``device``; in training mode and trained from now on, as in a first epoch.
        optimizer: Over its parameters.
        config: ``label_smoothing`` and ``grad_clip_norm`` are read.
        device: Where the model is.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        ConfigError: The optimiser does not work with this precision.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, device: torch.device, precision: str
    ):
        self.model, self.optimizer = model, optimizer
        self._config, self._sums = config, Sums(device)
        self._amp = mixed_precision(precision, device)
        self._scaler = build_scaler(optimizer, device, precision)
        self._second_pass = build_second_pass(optimizer, model, self._forward, device)
        begin_epoch(model, 1)
        model.train()

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        """Images float32 [B, 3, H, W] and labels int64 [B] or soft targets [B, K], on the device."""
        if self._second_pass is not None:
            self._second_pass.remember(images, labels, 1.0)
        logits, loss = self._forward(images, labels)
        self._sums.add(loss, logits, labels)
        self._scaler.scale(loss).backward()
        if self._second_pass is not None:
            self._second_pass.run(self._sums)
        if self._config.grad_clip_norm > 0:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._config.grad_clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def held_bytes(self) -> int:
        """Weights, buffers and what the optimiser remembers, in bytes."""
        remembered = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        tensors = {id(t): t for t in (*self.model.parameters(), *self.model.buffers(), *remembered)}
        return sum(t.numel() * t.element_size() for t in tensors.values())

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with self._amp:
            logits = self.model(images)
            return logits, mean_loss(logits, labels, self._config.label_smoothing)
