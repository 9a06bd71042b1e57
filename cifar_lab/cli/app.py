"""The program's own object, to which every command is added."""

import typer

EXAMPLES = """\b
Examples:
  cifar-lab train experiment=quickstart               a first run, in under a minute
  cifar-lab train model=resnet18 augment=crop_flip    CIFAR-10, other parts
  cifar-lab train -m optimizer.lr=0.01,0.001          a sweep
  cifar-lab train --help                              every group, key and flag
  cifar-lab list models                               what there is to choose from"""

app = typer.Typer(
    name="cifar-lab",
    help="Train image classifiers on CIFAR-10 and data sets like it, and find out what matters.",
    epilog=EXAMPLES,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich alone takes longer to import than help may take
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
