"""Pictures that need the model itself, and so torch: its first layer's filters, and what its convolutions make of an
image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fmnist_models.errors import UserError
from search.report.drawing import draw, plain, tile
from search.report.images import Images
from search.report.items import Missing, Picture, joined
from search.report.wording import network

if TYPE_CHECKING:
    from torch import Tensor, nn

_TENTH = 9
_SHOWN_CLASS = 4  # Coat, as in the paper
_FILTERS, _MAPS = "The first layer's filters", "The tenth feature map of every convolution"


def picture_network(folder: Path, images: Images | str, *, command: str) -> list[Picture | Missing]:
    """Filters (Figure 7 of the paper) and feature maps (Figure 8) of the model in a folder ``best``.

    ``images``: or why there are none. ``command``: the one that makes the model's files.
    """
    from fmnist_models.flip_averaging import bare_network
    from fmnist_models.saved_model import load_model

    try:
        predictor, config = load_model(folder)
    except FileNotFoundError:
        reason = "The best model has not been saved yet, which testing it does."
        return [Missing(title=title, reason=reason, command=command) for title in (_FILTERS, _MAPS)]
    except (UserError, OSError) as error:
        return [Missing(title=title, reason=str(error), command=command) for title in (_FILTERS, _MAPS)]
    name = network(config.network)
    model = bare_network(predictor)  # the maps of an image and not of its mirror image
    convolutions = _convolutions(model)
    if not convolutions:
        return [Missing(title=title, reason=f"{name}: this network has no convolution.") for title in (_FILTERS, _MAPS)]
    if isinstance(images, str):
        maps: Picture | Missing = Missing(title=_MAPS, reason=images, command="fmnist data prepare")
    else:
        coats = np.flatnonzero(images.test_labels == _SHOWN_CLASS)
        index = int(coats[0]) if len(coats) else 0
        shown = images.test[index]
        by = config.normalisation
        normalised = (shown.astype(np.float32) / 255 - by.mean) / by.std
        label = images.class_names[images.test_labels[index]]
        maps = _picture_maps(model, normalised, shown, name=name, label=label, index=index)
    return [_picture_filters(convolutions[0].weight, name=name), maps]


def _convolutions(model: nn.Module) -> list[nn.Conv2d]:
    from torch import nn

    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def _tenth_maps(model: nn.Module, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32] | None]:
    """Convolution → the tenth channel ``(H, W)`` of what it gives for the image ``(28, 28)``; ``None`` if it has fewer
    channels."""
    import torch
    from torch import nn

    maps: dict[str, npt.NDArray[np.float32] | None] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _given, output: maps.update(
            {name: output[0, _TENTH].numpy() if output.shape[1] > _TENTH else None}
        )

    convolutions = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    handles = [module.register_forward_hook(keep(name)) for name, module in convolutions]
    with torch.inference_mode():
        model(torch.from_numpy(image)[None, None])
    for handle in handles:
        handle.remove()
    return maps


def _picture_filters(weights: Tensor, *, name: str) -> Picture:
    """``weights``: ``(N, 1, H, W)``."""
    filters = weights.detach().numpy()[:, 0]
    size, columns = filters.shape[-1], 8
    return draw(
        (5.6, 0.7 * -(-len(filters) // columns)),
        lambda figure: tile(figure, list(filters), [""] * len(filters), columns=columns, title_lines=0),
        title=_FILTERS,
        alt=f"{len(filters)} filters of {size} by {size} weights, each in greys from its lowest to its highest weight.",
        note=f"{name} after training (as Figure 7 of the paper).",
    )


def _picture_maps(
    model: nn.Module,
    normalised: npt.NDArray[np.float32],
    image: npt.NDArray[np.uint8],
    *,
    name: str,
    label: str,
    index: int,
) -> Picture | Missing:
    found = _tenth_maps(model, normalised)
    maps = {title: channel for title, channel in found.items() if channel is not None}
    narrow = [title for title in found if title not in maps]
    left_out = f"Fewer than ten channels, and so left out: {', '.join(narrow)}." if narrow else ""
    if not maps:
        return Missing(title=_MAPS, reason=f"{name}: no convolution has ten channels.")
    shown: list[tuple[str, npt.NDArray[Any]]] = [("input", image), *maps.items()]
    columns = 4 if len(shown) <= 8 else 6
    names, pictures = [plain(title) for title, _ in shown], [picture for _, picture in shown]
    return draw(
        (1.35 * columns, 1.54 * -(-len(shown) // columns)),
        lambda figure: tile(figure, pictures, names, columns=columns),
        title=_MAPS,
        alt=f"The input, a {label}, and the tenth channel of the output of each of {len(maps)} convolutions, "
        "coarser from layer to layer.",
        note=joined((f"{name} and test image {index}, a {label} (as Figure 8 of the paper).", left_out)),
    )
