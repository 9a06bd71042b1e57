"""The program's own object, to which every command is added, and the flag that all commands have."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cifar_lab.errors import DEBUG

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


def with_debug(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same command with a flag ``--debug``, which goes to ``errors.DEBUG``."""

    @functools.wraps(command)
    def wrapped(*args: Any, debug: bool, **kwargs: Any) -> Any:
        DEBUG.set(debug)
        return command(*args, **kwargs)

    flag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
    own = inspect.signature(command, eval_str=True)
    added = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=flag)
    wrapped.__signature__ = own.replace(parameters=[*own.parameters.values(), added])  # pyrefly: ignore
    wrapped.__annotations__ = {**command.__annotations__, "debug": flag}
    return wrapped
