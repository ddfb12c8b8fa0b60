"""Pretrained weights: from torchvision or from a file, fitted to grey images and ten classes."""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fmnist_models.checkpoint import reason_of, refuse_compressed
from fmnist_models.errors import WeightsError
from fmnist_models.files import read_bounded
from fmnist_models.networks.resnet18 import ResNet18Hyperparameters, build_resnet18
from fmnist_models.paths import expand_home

_STALLED_S = 20.0
_MAX_BYTES = 2**28  # a ResNet-18 has 45 million
_ZIP = b"PK\x03\x04"
_FIRST = "conv1.weight"
_CLASSIFIER = ("fc.weight", "fc.bias")


def load_pretrained(weights: str) -> dict[str, Tensor] | None:
    """The RGB ResNet-18 state dict that ``weights`` names, on the CPU; ``None`` for ``none``.

    Args:
        weights: ``imagenet`` (downloaded once to torch's cache, hash-checked as it comes), ``none``, or the path
            of a torchvision-layout state dict, read with ``weights_only=True``.

    Raises:
        WeightsError: no such file, not a state dict, of another network, or ImageNet's cannot be downloaded.
    """
    if weights == "none":
        return None
    state = _imagenet() if weights == "imagenet" else _from_file(expand_home(weights))
    reference = build_resnet18(ResNet18Hyperparameters()).state_dict()
    for name, tensor in reference.items():
        if name in _CLASSIFIER:
            continue
        want = (64, 3, 7, 7) if name == _FIRST else tuple(tensor.shape)
        found = tuple(state[name].shape) if isinstance(state.get(name), Tensor) else None
        if found != want:
            has = "no such tensor" if found is None else f"one of shape {found}"
            raise WeightsError(
                f"{weights} is not a torchvision ResNet-18: expected {name} of shape {want}, found {has}; "
                "valid: imagenet, none, or the path of torchvision's resnet18 state dict"
            )
    return {name: state[name] for name in reference if name not in _CLASSIFIER}


def imagenet_available() -> bool:
    """Whether ImageNet's ResNet-18 is in torch's cache or can be downloaded into it now."""
    try:
        _imagenet()
    except WeightsError:
        return False
    return True


def apply_pretrained(model: nn.Module, state: Mapping[str, Tensor], *, stem_init: str) -> None:
    """Copies RGB weights ``state`` into a grey ten-class ResNet-18; the classifier keeps its fresh weights.

    ``stem_init``: ``random`` keeps the fresh first layer (the paper's way); ``sum`` sums the pretrained filters over
    the three colours, which answers a grey image as the original answers the same image in RGB. A first layer of
    another size than the pretrained one is always fresh.
    """
    fitted = {name: tensor for name, tensor in state.items() if name not in _CLASSIFIER and name != _FIRST}
    if stem_init == "sum" and model.get_parameter(_FIRST).shape[2:] == state[_FIRST].shape[2:]:
        fitted[_FIRST] = state[_FIRST].sum(dim=1, keepdim=True)
    model.load_state_dict(fitted, strict=False)


def _imagenet() -> dict[str, Tensor]:
    from torchvision.models import ResNet18_Weights

    before_s = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_STALLED_S)  # torch.hub offers no time limit
    try:
        # torch.hub announces a download even without progress.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return dict(ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # a damaged pickle, and a broken server, can raise anything
        raise WeightsError(
            f"ImageNet weights are neither cached under {torch.hub.get_dir()} nor downloadable ({error}); "
            "valid: weights: none, or the path of a torchvision resnet18 state dict"
        ) from error
    finally:
        socket.setdefaulttimeout(before_s)


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"no weights file {path}; valid: imagenet, none, or the path of an existing state dict")
    try:
        content = read_bounded(path, max_bytes=_MAX_BYTES)
        if content.startswith(_ZIP):  # or it is of torch's former layout, which cannot be compressed
            refuse_compressed(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise WeightsError(f"{path} is not a state dict that torch can read safely ({reason_of(error)})") from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    return state
