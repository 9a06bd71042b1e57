"""Runs found on disk: `cifar-lab runs`. Hundreds are read in a second, without torch.

``records`` reads folders, ``filters`` picks and orders them, ``listing`` groups and prints.
"""
