"""CustomNets of the same shapes trained side by side as one network, by grouped convolutions: a GPU that one of them
does not fill is given all of them at once (Wang et al., "Horizontally Fused Training Array", MLSys 2021, section 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fmnist_models.data import TrainingData
from fmnist_models.hyperparameters import defaults
from fmnist_models.networks.customnet import CustomNetHyperparameters
from fmnist_models.precision import autocast, memory_format, resolve_precision
from fmnist_models.prediction import DeviceImages, normalise
from fmnist_models.seeds import derive_seed
from fmnist_models.training import TrainingPlan

_FREE = ("lr", "weight_decay", "dropout")
_BETAS, _EPS = (0.9, 0.999), 1e-8  # of torch's AdamW
_VALIDATION_BATCH = 1000


class FusedEpoch(NamedTuple):
    """By network, ``(K,)`` float64 each."""

    train_loss: Tensor
    train_accuracy: Tensor
    val_loss: Tensor
    val_accuracy: Tensor


class FusedTraining:
    """Trains each of K plans as ``Training`` trains it alone, in the same order of images from the same fresh weights,
    but for rounding and the random numbers of dropout.

    Raises:
        ValueError: the plans differ in more than ``lr``, ``weight_decay``, ``dropout`` and seed, or ask for more than
            AdamW at a constant rate on images as they are.
    """

    def __init__(self, plans: Sequence[TrainingPlan], data: TrainingData, *, device: torch.device) -> None:
        _check_alike(plans)
        recipes = [plan.recipe for plan in plans]
        self._plans, self._device, self._batch_size = plans, device, recipes[0].batch_size
        self._precision = resolve_precision(plans[0].precision, device)
        self._train, self._validation = DeviceImages(data.train, device), DeviceImages(data.validation, device)
        self._normalisation = data.normalisation
        networks = [plan.build(None) for plan in plans]
        parameters = [dict(network.named_parameters()) for network in networks]
        self._shapes = {name: parameter.shape for name, parameter in parameters[0].items()}
        # One row for each network, so that a step of the optimiser is a step of one tensor.
        rows = [torch.cat([parameter.detach().flatten() for parameter in own.values()]) for own in parameters]
        self._weights = torch.stack(rows).to(device).requires_grad_()
        buffers = [dict(network.named_buffers()) for network in networks]
        self._buffers = {
            name: torch.cat([own[name] for own in buffers]).to(device)
            for name in buffers[0]
            if name.endswith(("running_mean", "running_var"))
        }
        self._moments = [torch.zeros_like(self._weights) for _ in _BETAS]
        self._lr = torch.tensor([[recipe.lr] for recipe in recipes], device=device)
        self._decay = torch.tensor([[recipe.weight_decay] for recipe in recipes], device=device)
        own = defaults(CustomNetHyperparameters)
        self._kept = torch.tensor([1 - {**own, **plan.hyperparameters}["dropout"] for plan in plans], device=device)
        self._num_steps = 0

    def epochs(self) -> Iterator[FusedEpoch]:
        """Yields each epoch when it is done."""
        for number in range(1, self._plans[0].num_epochs + 1):
            yield FusedEpoch(*self._train_one_epoch(number), *self._validate())

    def _train_one_epoch(self, number: int) -> Tensor:
        """Mean loss and accuracy, ``(2, K)``."""
        seeds = [derive_seed(plan.seed, number) for plan in self._plans]
        orders = np.stack([np.random.default_rng(seed).permutation(len(self._train)) for seed in seeds])
        torch.manual_seed(seeds[0])
        totals, count = torch.zeros(2, len(self._plans), dtype=torch.float64, device=self._device), 0
        for indices in torch.from_numpy(orders).to(self._device).split(self._batch_size, dim=1):
            if indices.shape[1] < 2:  # too small for BatchNorm
                continue
            with autocast(self._precision, self._device):
                scores = self._scores(self._train.images[indices].transpose(0, 1), training=True)
                labels = self._train.labels[indices]
                losses = _losses(scores, labels)
            self._step(*torch.autograd.grad(losses.mean(1).sum(), self._weights))
            totals += _sums(losses.detach(), scores.detach(), labels)
            count += indices.shape[1]
        return totals / count

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
        """Mean loss and accuracy, ``(2, K)``."""
        totals = torch.zeros(2, len(self._plans), dtype=torch.float64, device=self._device)
        everything = torch.arange(len(self._validation), device=self._device)
        for index in everything.split(_VALIDATION_BATCH):
            images, labels = self._validation.take(index)
            with autocast(self._precision, self._device):
                scores = self._scores(images.unsqueeze(1).expand(-1, len(self._plans), -1, -1), training=False)
            labels = labels.expand(len(self._plans), -1)
            totals += _sums(_losses(scores.float(), labels), scores, labels)
        return totals / len(self._validation)

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
            x = functional.batch_norm(x, mean, variance, scale, shift, training=training)
            x = functional.relu(x if block == "block3" else functional.max_pool2d(x, 2))
        x, weight = x.reshape(len(x), num, -1), of["fc.weight"]
        if training:
            x = x.where(torch.rand_like(x, dtype=torch.float32) < self._kept[:, None], 0)
            weight = weight / self._kept[:, None, None]  # there are fewer of these to scale
        return torch.baddbmm(of["fc.bias"].unsqueeze(1), x.transpose(0, 1), weight.transpose(1, 2))


def _check_alike(plans: Sequence[TrainingPlan]) -> None:
    first = plans[0]
    common = TrainingPlan(
        network="customnet",
        hyperparameters={"batch_size": first.recipe.batch_size},
        num_epochs=first.num_epochs,
        seed=0,
        precision=first.precision,
    )
    for plan in plans:
        others = {name: value for name, value in plan.hyperparameters.items() if name not in _FREE}
        if not replace(plan, hyperparameters=others, seed=0).is_same(asdict(common)):
            raise ValueError(f"only {', '.join(_FREE)} and seed may differ from {common}, but got {plan}")


def _losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy ``(K, B)`` of scores ``(K, B, 10)``."""
    return functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)


def _sums(losses: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Of losses and of correct answers, ``(2, K)``."""
    return torch.stack([losses.sum(1), (scores.argmax(2) == labels).sum(1)])
