"""The training of one network: a generator of epochs. Whoever consumes it decides what to do with an epoch."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from fmnist_models.augmentation import augment, changes_images
from fmnist_models.checkpoint import hash_tensors
from fmnist_models.data import TrainingData
from fmnist_models.epoch import Epoch
from fmnist_models.feature_cache import FeatureCache
from fmnist_models.features import Features, find_features
from fmnist_models.flip_averaging import for_inference
from fmnist_models.freezing import freeze_stages, frozen_names, train_mode
from fmnist_models.hyperparameters import Hyperparameters, defaults, domains
from fmnist_models.networks import get_network
from fmnist_models.precision import PRECISIONS, autocast, memory_format, resolve_precision
from fmnist_models.prediction import DeviceImages, normalise, predict_scores
from fmnist_models.prefix import Chain, rest_after_prefix
from fmnist_models.recipe import Recipe, build_optimizer, build_schedule
from fmnist_models.seeds import derive_seed
from fmnist_models.weight_average import WeightAverage
from fmnist_models.weights import apply_pretrained

_HYPERPARAMETERS = "hyperparameters"


class DivergedError(Exception):
    """The loss is no longer a finite number, so that training on is pointless."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything that decides a training but the images.

    ``hyperparameters`` holds the network's (``network.hyperparameters``) and the recipe's (``Recipe``) by name; what
    is left out has its default.

    Raises:
        ValueError: unknown network or hyperparameter, or a value outside its domain.
    """

    network: str
    hyperparameters: Mapping[str, Any]
    num_epochs: int
    seed: int
    precision: str = "auto"

    def __post_init__(self) -> None:
        self._split()
        if self.num_epochs < 1:
            raise ValueError(f"num_epochs must be at least 1, but got {self.num_epochs}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, but got {self.precision!r}")

    @property
    def recipe(self) -> Recipe:
        """How to train."""
        return self._split()[1]

    def build(self, pretrained: Mapping[str, Tensor] | None) -> nn.Module:
        """The module at epoch 0: fresh weights from the seed, ``pretrained`` ones over them, frozen as asked."""
        network, (own, _) = get_network(self.network), self._split()
        torch.manual_seed(derive_seed(self.seed, 0))
        model = network.build(own)
        if pretrained is not None:
            apply_pretrained(model, pretrained, stem_init=own.stem_init)  # type: ignore[attr-defined]
        if network.stages is not None:
            freeze_stages(network, model, unfreeze=own.unfreeze)  # type: ignore[attr-defined]
        return model

    def is_same(self, saved: Mapping[str, Any]) -> bool:
        """Whether ``saved``, a plan as plain values, is this one, perhaps of a time when it had fewer hyperparameters:
        those that it lacks had what is their default now."""
        mine = dataclasses.asdict(self)
        names = [name for name in mine if name != _HYPERPARAMETERS]
        if any(saved.get(name) != mine[name] for name in names):
            return False
        default = defaults(get_network(self.network).hyperparameters) | defaults(Recipe)
        return bool({**default, **saved.get(_HYPERPARAMETERS, {})} == {**default, **mine[_HYPERPARAMETERS]})

    def _split(self) -> tuple[Hyperparameters, Recipe]:
        own, rest = get_network(self.network).split(self.hyperparameters)
        unknown = sorted(set(rest) - set(domains(Recipe)))
        if unknown:
            valid = ", ".join([*domains(type(own)), *domains(Recipe)])
            raise ValueError(f"{self.network} has no hyperparameter {unknown[0]!r}; valid: {valid}")
        return own, Recipe(**rest)


class Training:
    """A training that can be consumed epoch by epoch, saved between epochs, and continued.

    In a ``torch.distributed`` process group it is data-parallel: each process trains its share of every batch,
    gradients are those of the mean over all images of the batch, and all processes yield the same losses and
    accuracies. An epoch leaves out its last batch if that has fewer than two images for each process, which batch norm
    needs.

    Randomness in an epoch is a function of (seed, epoch, rank) alone, so the epoch's number restores it: a continued
    training ends with the same weights, bit for bit, as one that was never interrupted (on one thread of a CPU).

    ``model`` is the network that is judged and kept: the one that trains or, with ``ema``, the average of its weights.
    ``predictor`` gives the scores that it is judged by.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        data: TrainingData,
        *,
        device: torch.device,
        pretrained: Mapping[str, Tensor] | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        """``cache``: where what frozen first stages make of the images is kept, if nothing happens to images before."""
        self.plan = plan
        self.history: list[Epoch] = []
        self._device = device
        self._recipe = plan.recipe
        self._precision = resolve_precision(plan.precision, device)
        self._train = DeviceImages(data.train, device)
        self._validation = DeviceImages(data.validation, device)
        self._normalisation = data.normalisation
        self._network = plan.build(pretrained).to(device).to(memory_format=memory_format(self._precision))
        self._rank, self._world_size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self._batches = _batches(len(data.train), self._recipe.batch_size, smallest=2 * self._world_size)
        self._optimizer = build_optimizer(self._recipe, self._network.parameters())
        self._schedule = build_schedule(self._recipe, self._optimizer, num_steps=len(self._batches) * plan.num_epochs)
        self._cache, self._is_pretrained = cache, pretrained is not None
        self._features = self._find_features()
        trained = self._network if self._features is None else self._features.rest
        self._forward: nn.Module = DistributedDataParallel(trained) if self._world_size > 1 else trained
        self._average = WeightAverage(self._network, decay=self._recipe.ema) if self._recipe.ema else None
        self.model = self._network if self._average is None else self._average.network
        self._frozen = frozen_names(self._network)

    @property
    def predictor(self) -> nn.Module:
        """``model`` as it is used: together with mirror images, if the plan has ``flip_averaging``."""
        return for_inference(self.model, self.plan.hyperparameters)

    def epochs(self) -> Iterator[Epoch]:
        """Trains on from where it stands to ``plan.num_epochs``, yielding each epoch when it is done.

        Raises:
            DivergedError: a loss is not finite.
        """
        for number in range(len(self.history) + 1, self.plan.num_epochs + 1):
            start_s = time.perf_counter()
            lr = float(self._optimizer.param_groups[0]["lr"])
            train_loss, train_accuracy = self._train_one_epoch(number)
            val_loss, val_accuracy = self._validate()
            if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
                raise DivergedError(
                    f"epoch {number}: train_loss {train_loss}, val_loss {val_loss} with lr {self._recipe.lr:g}"
                )
            epoch = Epoch(
                epoch=number,
                train_loss=train_loss,
                train_accuracy=train_accuracy,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                lr=lr,
                epoch_s=time.perf_counter() - start_s,
            )
            self.history.append(epoch)
            yield epoch

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue; tensors, numbers and text only, so ``weights_only=True`` loads it. Of what is
        frozen, and comes from the plan and the pretrained weights again, no more than a hash."""
        state: dict[str, Any] = {
            "plan": dataclasses.asdict(self.plan),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "model": _without(self._frozen, self._network.state_dict()),
            "frozen": self._frozen_hash,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        if self._average is not None:
            average = self._average.state_dict()
            state["average"] = {**average, "network": _without(self._frozen, average["network"])}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where ``state`` was saved.

        Raises:
            ValueError: ``state`` comes from a training with another plan or with other frozen weights.
        """
        mine, theirs = dataclasses.asdict(self.plan), state["plan"]
        if not self.plan.is_same(theirs):
            different = [
                f"{key} {theirs.get(key)!r}, not {mine[key]!r}" for key in mine if theirs.get(key) != mine[key]
            ]
            raise ValueError(f"the checkpoint belongs to another training: {'; '.join(different)}")
        has_frozen = "frozen" not in state  # of a time when all was saved
        if not has_frozen and state["frozen"] != self._frozen_hash:
            raise ValueError("the checkpoint belongs to another training: its frozen stages had other weights")
        if not _fits(self._optimizer, state["optimizer"]["state"]):
            raise ValueError("the checkpoint belongs to another training: its optimiser had weights of other shapes")
        frozen = {} if has_frozen else _only(self._frozen, self._network.state_dict())
        self._network.load_state_dict({**frozen, **state["model"]})
        if self._average is not None:
            average = state["average"]
            self._average.load_state_dict({**average, "network": {**frozen, **average["network"]}})
        if self._features is not None and has_frozen:
            self._features = self._find_features(self._features.rest)
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.history = [Epoch(**epoch) for epoch in state["history"]]

    def _train_one_epoch(self, number: int) -> tuple[float, float]:
        shuffled = np.random.default_rng(derive_seed(self.plan.seed, number)).permutation(len(self._train))
        order = torch.from_numpy(shuffled).to(self._device)  # at once, as each copy waits until a GPU is idle
        torch.manual_seed(derive_seed(self.plan.seed, number, self._rank))
        train_mode(self._forward)
        totals = torch.zeros(3, dtype=torch.float64, device=self._device)  # loss, correct, images
        for batch in self._batches:
            share = order[batch][self._rank :: self._world_size]
            inputs, labels = self._train_inputs(share)
            with autocast(self._precision, self._device):
                scores = self._forward(inputs)
                loss = functional.cross_entropy(scores, labels, label_smoothing=self._recipe.label_smoothing)
            self._optimizer.zero_grad()
            (loss * self._weight(share, batch)).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            if self._average is not None:
                self._average.update()
            self._schedule.step()
            correct = (scores.detach().argmax(1) == labels).sum()
            totals += torch.stack([loss.detach() * len(labels), correct, torch.ones_like(labels).sum()])
        return self._means(totals)

    def _weight(self, share: Tensor, batch: slice) -> float:
        """Of this process's mean loss: gradients, averaged over processes, become those of the mean over the whole
        batch, though some processes may have one image more than others. 1 where all have as many."""
        num_images: int = batch.stop - batch.start
        return len(share) * self._world_size / num_images

    def _validate(self) -> tuple[float, float]:
        if self._world_size > 1:
            # Each process has BatchNorm statistics of its own; the first one's are saved, so they are what is judged.
            for network in dict.fromkeys((self._network, self.model)):  # in the same order everywhere
                for buffer in network.buffers():
                    dist.broadcast(buffer, 0)
        share = torch.arange(len(self._validation), device=self._device)[self._rank :: self._world_size]
        images, labels = self._validation.take(share)
        if self._features is None:
            scores = predict_scores(
                self.predictor, images, normalisation=self._normalisation, precision=self._precision
            )
        else:
            rest = rest_after_prefix(get_network(self.plan.network), self.model)
            scores = self._features.predict_scores(share, rest=rest, precision=self._precision)
        loss = functional.cross_entropy(scores, labels, reduction="sum")
        return self._means(
            torch.stack([loss, (scores.argmax(1) == labels).sum(), torch.ones_like(labels).sum()]).double()
        )

    def _train_inputs(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """What the network, or the part of it that trains, is given, and labels."""
        if self._features is not None:
            return self._features.train[share], self._train.labels[share]
        images, labels = self._train.take(share)
        images = normalise(augment(images, self._recipe), self._normalisation)
        return images.to(memory_format=memory_format(self._precision)), labels

    @cached_property
    def _frozen_hash(self) -> str:
        frozen = _only(self._frozen, self._network.state_dict())
        return hash_tensors({name: tensor.cpu() for name, tensor in frozen.items()})

    def _find_features(self, rest: Chain | None = None) -> Features | None:
        if self._cache is None or changes_images(self._recipe):
            return None
        validation = self._validation.images
        mirrored = [validation.flip(2)] if self._recipe.flip_averaging else []
        return find_features(
            self._cache,
            rest=rest,
            # Fresh weights are those of this training alone.
            is_shared=self._is_pretrained,
            network=get_network(self.plan.network),
            model=self._network,
            parts=(self._train.images, validation, *mirrored),
            normalisation=self._normalisation,
            precision=self._precision,
        )

    def _means(self, totals: Tensor) -> tuple[float, float]:
        """Mean loss and accuracy over all processes from this one's (loss sum, correct, images)."""
        if self._world_size > 1:
            dist.all_reduce(totals)
        loss, correct, images = totals.tolist()
        return loss / images, correct / images


def _fits(optimizer: Optimizer, state: Mapping[int, Mapping[str, Tensor | None]]) -> bool:
    """Whether what an optimiser kept about each weight has the shape of that weight; a number may be about any."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    return all(
        kept is None or kept.shape in (torch.Size(), weights[number].shape)
        for number, about in state.items()
        for kept in about.values()
    )


def _only(names: Set[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name in names}


def _without(names: Set[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


def _batches(count: int, batch_size: int, *, smallest: int) -> list[slice]:
    """Consecutive slices of ``batch_size``; the rest is a batch too, unless it is too small for BatchNorm."""
    slices = [slice(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    return [batch for batch in slices if batch.stop - batch.start >= smallest]
