import pytest

from cifar_lab.errors import ConfigError
from cifar_lab.flags import parse_flags


def test_flags_may_stand_anywhere() -> None:
    flags = parse_flags(["model=a", "--plugin", "x.py", "-m", "seed=0,1", "--plugin=y.py", "--config-dir", "c", "--debug"])
    assert flags.overrides == ["model=a", "seed=0,1"]
    assert flags.plugins == ["x.py", "y.py"]
    assert (flags.multirun, flags.debug, flags.config_dir) == (True, True, "c")
    assert flags.for_hydra() == ["--multirun", "--config-dir", "c", "model=a", "seed=0,1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "3"], "unknown flag '--lr'"),
        (["--plugin"], "--plugin needs a value"),
        (["--plugin", "-m"], "--plugin needs a value"),
        (["--cfg", "jobs"], "must be one of job, hydra, all"),
        (["--config-path", "x"], "--config-path is not supported"),
        (["--experimental-rerun=x"], "not supported"),
    ],
)
def test_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_flags(arguments)
    assert words in caught.value.what
    assert caught.value.hint or "must be" in words
