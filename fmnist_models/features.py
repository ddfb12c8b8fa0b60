"""The images of a training as its frozen first stages see them, so that these need not be run again and again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmnist_models.data import Normalisation
from fmnist_models.feature_cache import FeatureCache, feature_key
from fmnist_models.flip_averaging import average_scores
from fmnist_models.networks import Network
from fmnist_models.precision import autocast, memory_format
from fmnist_models.prediction import normalise
from fmnist_models.prefix import Chain, frozen_prefix, split_at

_BATCH = 250
_OWN_BYTES = 2**28  # of features that are in the memory of each process that trains
_FORMAT = 3
"""To be raised when what a stage makes of an image changes: a network, its normalisation, its enlargement."""


@dataclass(frozen=True)
class Features:
    """``train`` and ``validation`` images after the frozen stages, ``(N, …)``; ``rest``: what comes after these, in
    training. ``mirrored``: the validation images' mirror images, where they are judged together with them."""

    train: Tensor
    validation: Tensor
    mirrored: Tensor | None
    rest: Chain

    @torch.inference_mode()
    def predict_scores(self, index: Tensor, *, rest: Chain, precision: str) -> Tensor:
        """Class scores ``(B, 10)`` float32 before softmax, of the validation images of those numbers, ``(B,)`` int64;
        ``rest``: what comes after the frozen stages in the network that is judged."""
        rest.eval()
        scores = []
        for part in torch.split(index, _BATCH):
            with autocast(precision, self.validation.device):
                own = rest(self.validation[part]).float()
                scores.append(own if self.mirrored is None else average_scores(own, rest(self.mirrored[part])))
        return torch.cat(scores)


def find_features(
    cache: FeatureCache,
    *,
    network: Network,
    model: torch.nn.Module,
    parts: Sequence[Tensor],
    normalisation: Normalisation,
    precision: str,
    is_shared: bool = True,
    rest: Chain | None = None,
) -> Features | None:
    """Features of ``parts``, images ``(N, 28, 28)`` uint8 to train on, to validate and, perhaps, the latter's mirror
    images, computed or out of the cache; ``None`` if no stage is frozen, or the cache is too small for them.
    ``is_shared``: other trainings may want them too, so that they are put into the cache; others are kept in memory,
    a few. ``rest``: the chain that goes on with them, where there is one already.

    The key stands for all that decides them, the arithmetic included: weights of the frozen stages, images,
    normalisation, precision, torch, and what it computes on. Batches of one size make them the same, bit for bit,
    whoever computes them.
    """
    prefix = frozen_prefix(network, model)
    if not prefix:
        return None
    stem, whole_rest = split_at(network, model, prefix)
    assert network.stages is not None
    frozen = [
        tensor
        for stage in prefix
        for module in network.stages(model)[stage]
        for tensor in (*module.parameters(), *module.buffers())
    ]
    device = parts[0].device
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    arithmetic = f"{_FORMAT} {torch.__version__} {cudnn} {on} {torch.get_num_threads()}"
    arithmetic += f" {is_deterministic} {precision} {normalisation}"
    described = f"{network.name} {getattr(model, 'input_size', 28)} {prefix}"
    one = _run(stem, parts[0][:1], normalisation=normalisation, precision=precision)
    if not cache.fits(one.nbytes * max(len(part) for part in parts), num_parts=len(parts)):
        return None
    if not is_shared and one.nbytes * sum(map(len, parts)) > _OWN_BYTES:
        return None

    decided = feature_key(arithmetic, described, tensors=frozen) if is_shared else ""

    def find(part: Tensor) -> Tensor:
        def compute() -> Tensor:
            return _run(stem, part, normalisation=normalisation, precision=precision)

        if not is_shared:
            return compute()
        key = feature_key(decided, tensors=[part])
        return cache.get(key, lambda: compute().cpu()).to(device)

    train, validation, *mirrored = map(find, parts)
    return Features(train, validation, mirrored[0] if mirrored else None, rest or whole_rest)


@torch.no_grad()  # and not inference_mode, whose tensors cannot be trained on
def _run(stem: Chain, images: Tensor, *, normalisation: Normalisation, precision: str) -> Tensor:
    stem.eval()
    made = []
    for part in torch.split(images, _BATCH):
        with autocast(precision, images.device):
            made.append(stem(normalise(part, normalisation).to(memory_format=memory_format(precision))))
    return torch.cat(made)
