"""The recipe: everything about how a network is trained that a search may choose, with its optimiser and schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR

from fmnist_models.hyperparameters import Condition, Hyperparameters, Interval, Options, hyperparameter
from fmnist_models.optimizers import EagerAdamW, EagerSGD


@dataclass(frozen=True, kw_only=True)
class Recipe(Hyperparameters):
    """How to train.

    ``lr``: the (peak) learning rate. ``batch_size``: images per step, over all workers of a trial. ``schedule``:
    ``constant``; ``cosine`` down to 0 over all epochs; ``one-cycle`` up to ``lr`` and down (Smith and Topin, "Super-
    Convergence", 2018). ``label_smoothing``: share of the target spread over all classes. Augmentation, off by
    default: ``flip`` mirrors every second image, ``shift`` moves by up to so many pixels, ``erase`` is the probability
    of blanking a random rectangle (Zhong et al., "Random Erasing Data Augmentation", 2020).

    What predicts: ``ema`` is the decay per step of a moving average of the weights, which is then what is judged and
    kept (``WeightAverage``), 0 for the weights themselves; with ``flip_averaging`` an image is judged together with
    its mirror image, wherever the model is used (``FlipAveraged``).
    """

    optimizer: str = hyperparameter("adamw", Options(("adamw", "sgd")))
    lr: float = hyperparameter(1e-3, Interval(1e-7, 10.0))
    momentum: float = hyperparameter(0.9, Interval(0.0, 0.999), when=Condition("optimizer", "sgd"))
    weight_decay: float = hyperparameter(1e-2, Interval(0.0, 10.0))
    batch_size: int = hyperparameter(64, Interval(2, 8192, integer=True))
    schedule: str = hyperparameter("constant", Options(("constant", "cosine", "one-cycle")))
    label_smoothing: float = hyperparameter(0.0, Interval(0.0, 0.9))
    flip: bool = hyperparameter(False, Options((True, False)))
    shift: int = hyperparameter(0, Interval(0, 14, integer=True))
    erase: float = hyperparameter(0.0, Interval(0.0, 1.0))
    ema: float = hyperparameter(0.0, Interval(0.0, 0.9999))
    flip_averaging: bool = hyperparameter(False, Options((True, False)))


def build_optimizer(recipe: Recipe, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The recipe's optimiser over the ``parameters`` that train."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if recipe.optimizer == "sgd":
        return EagerSGD(trainable, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return EagerAdamW(trainable, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def build_schedule(recipe: Recipe, optimizer: Optimizer, *, num_steps: int) -> LRScheduler:
    """The recipe's schedule over ``num_steps`` optimiser steps; advanced after each step. The last step of
    ``one-cycle`` has the cycle's last rate, ``lr`` / 250,000; ``cosine`` reaches 0 after its last step."""
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=num_steps)
    if recipe.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=num_steps, cycle_momentum=False)
    return LambdaLR(optimizer, _constant)


def _constant(step: int) -> float:
    return 1.0
