"""What trains on a GPU, run on a machine without one: under torch's FakeTensorMode tensors have shapes, types and a
device, ``cuda:0``, and no content, and an operation on tensors of two devices fails as it would on a GPU.

Run as a program, so that a crash of torch's simulation is not one of the tests. Not simulated, because it asks for the
driver or for contents: gradients, which are zeros here; cuDNN's LSTM, in whose place torch's own runs; the hashes by
which shared features and checkpoints go; numbers that are read from the device; and files, which are written from the
CPU.
"""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from fmnist_models.classifier import Classifier
from fmnist_models.data import LabelledImages, Normalisation, TrainingData
from fmnist_models.feature_cache import FeatureCache
from fmnist_models.flip_averaging import for_inference
from fmnist_models.fold_training import FoldTraining
from fmnist_models.folds import FoldedImages
from fmnist_models.networks import NETWORKS, build_network
from fmnist_models.precision import autocast
from fmnist_models.prediction import DeviceImages, predict_scores
from fmnist_models.training import Training, TrainingPlan

CUDA = torch.device("cuda", 0)
EVERYTHING = {
    "batch_size": 10,
    "flip": True,
    "shift": 2,
    "erase": 0.5,
    "ema": 0.9,
    "flip_averaging": True,
    "label_smoothing": 0.1,
    "schedule": "one-cycle",
}
PRECISIONS = ("fp32", "bf16")


def make_images(count: int) -> LabelledImages:
    return LabelledImages(np.zeros((count, 28, 28), dtype=np.uint8), np.arange(count) % 10)


IMAGES = make_images(20)
DATA = TrainingData(IMAGES, IMAGES.first(10), Normalisation(0.3, 0.35))


class _Mode(FakeTensorMode):
    """A fake tensor knows its mode, which a deep copy of the tensor would copy too."""

    def __deepcopy__(self, memo: object) -> _Mode:
        return self


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors may claim to be on a GPU; what cannot be simulated is replaced."""
    with ExitStack() as stack:
        stack.enter_context(_Mode())
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        for target, name, value in (
            (torch, "from_numpy", _from_numpy),
            (nn.Module, "_apply", _apply),
            (Tensor, "backward", _backward),
            (Training, "_means", lambda self, totals: (0.5, 0.5)),
            (torch.cuda, "get_device_name", lambda device: "a GPU"),
            (torch.cuda, "is_bf16_supported", lambda including_emulation=True: True),
            (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        ):
            stack.enter_context(patch.object(target, name, value))
        yield


def _from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    return torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)))


def _apply(self: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """torch's own swaps a fake tensor with another one, which it refuses for these."""
    for module in self.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(change(weight.detach()), requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else change(buffer)
        if isinstance(module, nn.RNNBase):
            module._init_flat_weights()
    return self


def _backward(self: Tensor) -> None:
    """Zeros for every weight that the loss is made of; torch's own starts a thread for the device."""
    found, left = set(), [self.grad_fn]
    while left:
        step: Any = left.pop()
        if step is not None and step not in found:
            found.add(step)
            left += [before for before, _ in step.next_functions]
            if hasattr(step, "variable"):
                step.variable.grad = torch.zeros_like(step.variable)


def devices_of(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers())}


def plan(network: str, precision: str = "fp32", **hyperparameters: Any) -> TrainingPlan:
    return TrainingPlan(network=network, hyperparameters=hyperparameters, num_epochs=1, seed=0, precision=precision)


def check_the_simulation() -> None:
    with autocast("bf16", CUDA):
        assert torch.is_autocast_enabled("cuda")
    try:
        torch.zeros(3, device=CUDA) + torch.zeros(3)
    except RuntimeError:
        return
    raise AssertionError("nobody noticed that two tensors are on two devices")


def check_epoch(network: str, precision: str) -> None:
    training = Training(plan(network, precision, **EVERYTHING), DATA, device=CUDA)
    assert [epoch.epoch for epoch in training.epochs()] == [1]
    assert devices_of(training.model) == {CUDA}


def check_prediction(network: str) -> None:
    model = for_inference(build_network(network, {}), {"flip_averaging": True}).to(CUDA)
    images = DeviceImages(IMAGES, CUDA)
    scores = predict_scores(model, images.images, normalisation=DATA.normalisation)
    loss = nn.functional.cross_entropy(scores.double(), images.labels)
    probabilities = Classifier(model, DATA.normalisation)(images.images)  # what is exported
    assert {scores.device, loss.device, probabilities.device} == {CUDA}
    assert (scores.dtype, probabilities.shape) == (torch.float32, (len(IMAGES), 10))


def check_prefix(network: str) -> None:
    """Of fresh weights, whose features are kept on the device."""
    frozen = {"unfreeze": (), "flip_averaging": True, "batch_size": 10}
    cache = FeatureCache(Path("unused"), 10**9)
    training = Training(plan(network, "bf16", **frozen), DATA, device=CUDA, cache=cache)
    assert training._features is not None
    assert {training._features.train.device, training._features.validation.device} == {CUDA}
    assert len(list(training.epochs())) == 1


def check_folds() -> None:
    training = FoldTraining(plan("lenet5", **EVERYTHING), FoldedImages(IMAGES, folds=2, seed=0), device=CUDA)
    assert [epoch.epoch for epoch in training.epochs()] == [1, 2]
    assert devices_of(training.model) == {CUDA}


def list_checks() -> Iterator[tuple[Callable[..., None], tuple[str, ...]]]:
    yield check_the_simulation, ()
    for network in NETWORKS.values():
        yield check_prediction, (network.name,)
        yield from ((check_epoch, (network.name, precision)) for precision in PRECISIONS)
        if network.stages is not None:
            yield check_prefix, (network.name,)
    yield check_folds, ()


def main() -> None:
    warnings.simplefilter("ignore")  # of deep copies, which look at where a tensor lies
    torch.set_num_threads(1)
    failed = 0
    for check, arguments in list_checks():
        try:
            with fake_cuda():
                check(*arguments)
        except Exception:
            failed += 1
            print(check.__name__, *arguments, traceback.format_exc(), flush=True)
        else:
            print(check.__name__, *arguments, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
