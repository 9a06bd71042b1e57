"""Jobs on one machine never all land on GPU 0."""

from collections import Counter

import pytest
import torch

from cifar_lab.cluster.gpus import MACHINE_GPUS, choose_gpu, visible_gpus

LOCAL = {"SUBMITIT_EXECUTOR": "local"}
SLURM = {"SUBMITIT_EXECUTOR": "slurm"}


@pytest.mark.parametrize(
    ("environ", "count", "given", "expected"),
    [
        # submitit says GPU 0 to every job, or none; what its parent saw counts
        ({**LOCAL, MACHINE_GPUS: "0,1,2,3", "CUDA_VISIBLE_DEVICES": "0"}, 1, False, ["0", "1", "2", "3", "0", "1"]),
        ({**LOCAL, MACHINE_GPUS: "2,5", "CUDA_VISIBLE_DEVICES": ""}, 0, False, ["2", "5", "2", "5", "2", "5"]),
        ({**LOCAL, MACHINE_GPUS: "", "CUDA_VISIBLE_DEVICES": ""}, 0, False, [None] * 6),
        # Slurm or Ray gave each job its own
        ({**SLURM, "SLURM_JOB_GPUS": "3", "CUDA_VISIBLE_DEVICES": "0"}, 1, False, [None] * 6),
        ({**SLURM, "SLURM_STEP_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "0,1"}, 2, False, [None] * 6),
        ({"CUDA_VISIBLE_DEVICES": "3"}, 1, True, [None] * 6),
        # nobody gave any: they take turns
        (SLURM, 4, False, ["0", "1", "2", "3", "0", "1"]),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "4,7"}, 2, False, ["4", "7", "4", "7", "4", "7"]),
        ({}, 2, False, ["0", "1", "0", "1", "0", "1"]),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": "MIG-a, MIG-b"}, 2, False, ["MIG-a", "MIG-b"] * 3),
        # as for CUDA, nothing counts behind an entry that is none
        ({"CUDA_VISIBLE_DEVICES": "3,1,-1,2"}, 2, False, ["3", "1"] * 3),
        # there is nothing to choose
        (SLURM, 1, False, [None] * 6),
        (SLURM, 0, False, [None] * 6),
        ({**SLURM, "CUDA_VISIBLE_DEVICES": ""}, 0, False, [None] * 6),
    ],
)
def test_which_gpu_a_job_takes(environ: dict[str, str], count: int, given: bool, expected: list[str | None]) -> None:
    assert [choose_gpu(environ, number, lambda: count, given=given) for number in range(6)] == expected


def test_listed_gpus_are_not_counted() -> None:
    """Counting instances of MIG begins CUDA, and then it is too late to choose one."""

    def count() -> int:
        raise AssertionError("counted")

    assert choose_gpu({**SLURM, "CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b"}, 1, count) == "MIG-b"


@pytest.mark.parametrize(
    ("listed", "count", "found"),
    [
        (None, 2, ["0", "1"]),
        ("", 0, []),
        ("4, 7", 2, ["4", "7"]),
        ("0,1,7", 2, ["0", "1"]),
        ("0,-1,1", 1, ["0"]),
        ("MIG-a", 1, ["MIG-a"]),
    ],
)
def test_gpus_that_workers_get_are_those_that_cuda_shows(monkeypatch, listed, count, found) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == found


def test_jobs_are_spread_evenly() -> None:
    taken = Counter(choose_gpu(SLURM, number, lambda: 4) for number in range(40))
    assert taken == {"0": 10, "1": 10, "2": 10, "3": 10}
