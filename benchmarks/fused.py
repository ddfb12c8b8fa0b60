"""CustomNets of the same shapes trained side by side as one network, by grouped convolutions: a GPU that one of them
does not fill is given all of them at once (Wang et al., "Horizontally Fused Training Array", MLSys 2021, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fmnist_models.data import TrainingData
from fmnist_models.precision import autocast, memory_format
from fmnist_models.prediction import DeviceImages, normalise
from fmnist_models.seeds import derive_seed
from fmnist_models.training import TrainingPlan

_BETAS, _EPS = (0.9, 0.999), 1e-8  # of torch's AdamW
_VALIDATION_BATCH = 1000


class FusedEpoch(NamedTuple):
    """By network, ``(K,)`` float64 each."""

    train_loss: Tensor
    val_accuracy: Tensor


class FusedTraining:
    """Trains each of K plans as ``Training`` trains it alone, in the same order of images from the same fresh weights,
    but for rounding and the random numbers of dropout.

    The plans may differ in ``lr``, ``weight_decay``, ``dropout`` and seed. What else a recipe may hold is at its
    default: AdamW at a constant rate, images as they are.
    """

    def __init__(
        self, plans: Sequence[TrainingPlan], data: TrainingData, *, device: torch.device, precision: str
    ) -> None:
        self._plans, self._device, self._precision = plans, device, precision
        self._train, self._validation = DeviceImages(data.train, device), DeviceImages(data.validation, device)
        self._normalisation = data.normalisation
        networks = [plan.build(None) for plan in plans]
        parameters = [dict(network.named_parameters()) for network in networks]
        self._shapes = {name: parameter.shape for name, parameter in parameters[0].items()}
        # One row for each network, so that a step of the optimiser is a step of one tensor.
        rows = [torch.cat([parameter.detach().flatten() for parameter in own.values()]) for own in parameters]
        self._weights = torch.stack(rows).to(device).requires_grad_()
        self._buffers = {
            name: torch.cat([dict(network.named_buffers())[name] for network in networks]).to(device)
            for name, _ in networks[0].named_buffers()
            if name.endswith(("running_mean", "running_var"))
        }
        self._moments = [torch.zeros_like(self._weights) for _ in _BETAS]
        recipes = [plan.recipe for plan in plans]
        self._lr = torch.tensor([[recipe.lr] for recipe in recipes], device=device)
        self._decay = torch.tensor([[recipe.weight_decay] for recipe in recipes], device=device)
        self._kept = torch.tensor([1 - plan.hyperparameters["dropout"] for plan in plans], device=device)
        self._batch_size, self._num_steps = recipes[0].batch_size, 0

    def epochs(self) -> Iterator[FusedEpoch]:
        """Yields each epoch when it is done."""
        for number in range(1, self._plans[0].num_epochs + 1):
            yield FusedEpoch(self._train_one_epoch(number), self._validate())

    def _train_one_epoch(self, number: int) -> Tensor:
        seeds = [derive_seed(plan.seed, number) for plan in self._plans]
        orders = np.stack([np.random.default_rng(seed).permutation(len(self._train)) for seed in seeds])
        torch.manual_seed(seeds[0])
        total = torch.zeros(len(self._plans), dtype=torch.float64, device=self._device)
        count = 0
        for indices in torch.from_numpy(orders).to(self._device).split(self._batch_size, dim=1):
            if indices.shape[1] < 2:  # too small for BatchNorm
                continue
            with autocast(self._precision, self._device):
                scores = self._scores(self._train.images[indices].transpose(0, 1), training=True)
                losses = functional.cross_entropy(
                    scores.flatten(0, 1), self._train.labels[indices].flatten(), reduction="none"
                ).view(indices.shape)
            self._step(*torch.autograd.grad(losses.mean(1).sum(), self._weights))
            total += losses.detach().sum(1)
            count += indices.shape[1]
        return total / count

    @torch.no_grad()
    def _step(self, gradient: Tensor) -> None:
        """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), a rate and a decay a row."""
        self._num_steps += 1
        first, second = self._moments
        first.lerp_(gradient, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        root = second.sqrt().div_((1 - _BETAS[1] ** self._num_steps) ** 0.5).add_(_EPS)
        self._weights.mul_(1 - self._lr * self._decay)
        self._weights.sub_(self._lr / (1 - _BETAS[0] ** self._num_steps) * first / root)

    @torch.inference_mode()
    def _validate(self) -> Tensor:
        count = len(self._validation)
        correct = torch.zeros(len(self._plans), dtype=torch.float64, device=self._device)
        for images, labels in zip(
            self._validation.images.split(_VALIDATION_BATCH),
            self._validation.labels.split(_VALIDATION_BATCH),
            strict=True,
        ):
            with autocast(self._precision, self._device):
                scores = self._scores(images.unsqueeze(1).expand(-1, len(self._plans), -1, -1), training=False)
            correct += (scores.argmax(2) == labels).sum(1)
        return correct / count

    def _scores(self, images: Tensor, *, training: bool) -> Tensor:
        """``(B, K, 28, 28)`` uint8, an image for each network, → ``(K, B, 10)``."""
        num = len(self._plans)
        sizes = [shape.numel() for shape in self._shapes.values()]
        parts = self._weights.split(sizes, dim=1)
        of = {name: part.view(num, *self._shapes[name]) for name, part in zip(self._shapes, parts, strict=True)}
        x = normalise(images.flatten(0, 1), self._normalisation).view(len(images), num, *images.shape[2:])
        x = x.to(memory_format=memory_format(self._precision))
        for block in ("block1", "block2", "block3"):
            weight, bias = of[f"{block}.0.weight"].flatten(0, 1), of[f"{block}.0.bias"].flatten()
            x = functional.conv2d(x, weight, bias, padding=1, groups=num)
            mean, variance = (self._buffers[f"{block}.1.running_{name}"] for name in ("mean", "var"))
            scale, shift = of[f"{block}.1.weight"].flatten(), of[f"{block}.1.bias"].flatten()
            x = functional.relu(functional.batch_norm(x, mean, variance, scale, shift, training=training))
            if block != "block3":
                x = functional.max_pool2d(x, 2)
        x = x.reshape(len(x), num, -1)
        if training:
            kept = self._kept[:, None]
            x = x * ((torch.rand_like(x, dtype=torch.float32) < kept) / kept)
        return torch.baddbmm(of["fc.bias"].unsqueeze(1), x.transpose(0, 1), of["fc.weight"].transpose(1, 2))
