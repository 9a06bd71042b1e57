"""Hydra plugins of cifar-lab: shells only; Hydra finds them nowhere else."""
