"""`python -m cifar_lab.cli`."""

from cifar_lab.cli import main

main()
