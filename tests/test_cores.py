"""Politeness towards other programs: when it is chosen, and that it is chosen in time."""

import json
import os
import subprocess
import sys

import pytest

from cifar_lab import cores


@pytest.fixture
def nothing_set(monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)


@pytest.mark.parametrize(("load", "polite"), [(0.0, False), (1.9, False), (2.0, True), (9.0, True)])
def test_from_half_a_load_per_core_on(nothing_set, monkeypatch, load, polite):
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert cores.wait_politely_if_busy() is polite
    assert os.environ.pop("GOMP_SPINCOUNT", None) == ("1000" if polite else None)


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_a_person_has_set_stays(nothing_set, monkeypatch, name):
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    monkeypatch.setenv(name, "active")
    assert not cores.wait_politely_if_busy()
    assert os.environ[name] == "active"


def test_it_is_chosen_before_torch_reads_it():
    script = """
import json, os, sys
os.environ.pop("GOMP_SPINCOUNT", None), os.environ.pop("OMP_WAIT_POLICY", None)
os.getloadavg = lambda: (99.0, 0.0, 0.0)
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print(json.dumps(os.environ.get("GOMP_SPINCOUNT")))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Finder())
from cifar_lab.train import main
main(["experiment=quickstart"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == "1000"
