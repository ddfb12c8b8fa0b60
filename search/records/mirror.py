"""A study in a database as the one process that writes it has it: told to the database first, read from memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.errors import DatabaseError

_NOT_ALONE = "another process writes to it too; is there a copy of the experiment's folder?"


class Mirror(InMemoryStorage):
    """Holds one study. A search asks for its trials all the time, which a database would answer with queries by the
    dozen. What cannot be told to the database is not in memory either, and a ``DatabaseError``."""

    def __init__(self, database: BaseStorage, study_id: int) -> None:
        super().__init__()
        self._database = database
        self._there = study_id
        self._name = database.get_study_name_from_id(study_id)
        here = self.create_new_study(database.get_study_directions(study_id), self._name)
        for key, value in database.get_study_user_attrs(study_id).items():
            super().set_study_user_attr(here, key, value)
        self._ids: list[int] = []  # there, by those here, which are the trials' numbers
        for trial in database.get_all_trials(study_id, deepcopy=False):
            if trial.number != len(self._ids):
                raise ValueError(f"a trial {trial.number} in the place of trial {len(self._ids)}")
            self._ids.append(trial._trial_id)
            super().create_new_trial(here, trial)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._told():
            self._ids.append(self._database.create_new_trial(self._there, template_trial))
            number = self._database.get_trial_number_from_id(self._ids[-1])
        if number != len(self._ids) - 1:
            raise self._failure(_NOT_ALONE)
        return super().create_new_trial(study_id, template_trial)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        with self._told():
            self._database.set_trial_state_values(self._ids[trial_id], state, values)
        return super().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        with self._told():
            self._database.set_trial_intermediate_value(self._ids[trial_id], step, intermediate_value)
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._told():
            self._database.set_trial_user_attr(self._ids[trial_id], key, value)
        super().set_trial_user_attr(trial_id, key, value)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        with self._told():
            self._database.set_study_user_attr(self._there, key, value)
        super().set_study_user_attr(study_id, key, value)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        raise NotImplementedError("a trial is added with all its parameters")

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise self._failure("it is gone") from error
        except UpdateFinishedTrialError as error:
            raise self._failure(_NOT_ALONE) from error

    def _failure(self, problem: str) -> DatabaseError:
        return DatabaseError(f"study {self._name} in the database: {problem}")
