"""What trains on a GPU has all its tensors there, and a GPU that torch cannot use is named with what torch says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fmnist_models.devices import check_cuda, count_gpus, device_name, find_cuda_problem, processor_name
from fmnist_models.errors import DeviceError
from fmnist_models.networks import NETWORKS
from search.configuration.config import parse_config
from search.errors import ConfigError
from search.running.slots import local_resources, plan_slots

TESTS = Path(__file__).parent


def test_everything_that_runs_on_a_gpu_has_its_tensors_there() -> None:
    """Each network in fp32 and bf16 with everything that a recipe has, prediction, features, and folds."""
    paths = os.pathsep.join(map(str, (TESTS, TESTS.parent)))
    done = subprocess.run(
        [sys.executable, str(TESTS / "fake_cuda.py")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for network in NETWORKS:
        assert f"check_epoch {network} bf16\n" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_torch_cannot_use_is_named_with_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises((AssertionError, RuntimeError)) as said:
        torch.cuda.init()
    problem = find_cuda_problem()
    assert problem == f"{' '.join(str(said.value).split())} (CUDA_VISIBLE_DEVICES is '')"
    with pytest.raises(DeviceError) as caught:
        check_cuda()
    assert str(caught.value).endswith(problem)
    assert count_gpus() == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_search_on_this_machine_says_why_there_is_no_gpu() -> None:
    config = parse_config({"space": {"model": "customnet"}, "gpus_per_trial": 1}, where="test")
    with pytest.raises(ConfigError, match=r"gpus_per_trial: .*0 GPUs that torch can use: .*CUDA_VISIBLE_DEVICES is"):
        plan_slots(config, [local_resources()])


def test_a_driver_that_is_too_old_for_torch_offers_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's own library counts its GPUs all the same."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_resources().gpus == 0


def test_a_device_has_a_name() -> None:
    assert device_name(torch.device("cpu")) == "cpu"
    assert processor_name()
