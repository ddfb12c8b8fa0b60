"""One layer of LSTM (Hochreiter and Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997) that reads an
image row by row, as in Baker, "Exploring image classification with Fashion-MNIST", 2021."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fmnist_models.hyperparameters import Hyperparameters, Interval, StageSubset, hyperparameter
from fmnist_models.networks.dropout import Dropout

STAGES = ("lstm", "fc")
_NUM_UNITS = 64


@dataclass(frozen=True, kw_only=True)
class LstmHyperparameters(Hyperparameters):
    """``dropout``: probability of dropping one of the last state's units; the original has none. ``unfreeze``: the
    stages that train (``lstm`` with its batch norm); ``fc`` always does."""

    dropout: float = hyperparameter(0.0, Interval(0.0, 0.95))
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


class Lstm(nn.Module):
    """Grey 28x28 images to ten class scores, 24,842 parameters (torch's LSTM has two biases, Keras' one: 24,586).

    Shapes: ``(B, 1, 28, 28)`` float → 28 rows, top to bottom, as time ``(B, 28, 28)`` → lstm's last state ``(B, 64)``,
    batch norm → fc ``(B, 10)`` scores before softmax.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, _NUM_UNITS, batch_first=True)
        self.norm = nn.BatchNorm1d(_NUM_UNITS)
        self.dropout = Dropout(dropout)
        self.fc = nn.Linear(_NUM_UNITS, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (last, _) = self.lstm(x.squeeze(1).contiguous())
        scores: Tensor = self.fc(self.dropout(self.norm(last[0])))
        return scores


def build_lstm(hyperparameters: Hyperparameters) -> Lstm:
    """An LSTM with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, LstmHyperparameters)
    return Lstm(dropout=hyperparameters.dropout)


def lstm_stages(model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """Stage → its modules, which together hold every parameter."""
    assert isinstance(model, Lstm)
    return {"lstm": (model.lstm, model.norm), "fc": (model.fc,)}


def lstm_steps(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Stage → what it does."""
    assert isinstance(model, Lstm)

    def read(x: Tensor) -> Tensor:
        _, (last, _) = model.lstm(x.squeeze(1).contiguous())
        state: Tensor = model.norm(last[0])
        return state

    def fc(x: Tensor) -> Tensor:
        scores: Tensor = model.fc(model.dropout(x))
        return scores

    return {"lstm": read, "fc": fc}
