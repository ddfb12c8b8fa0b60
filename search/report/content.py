"""Everything that stands on a page, section by section."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from search.records.looks import find_looks
from search.report.calibration import chart_calibration
from search.report.classes import chart_classes, estimate_classes
from search.report.cross_validation import read_result, tabulate_estimates
from search.report.curves import chart_curves
from search.report.drawing import counts_and_shares, draw
from search.report.evaluated import Evaluated, read_evaluated
from search.report.garments import chart_labels, picture_examples, picture_families, picture_wrong
from search.report.history import chart_history
from search.report.images import Images, load_searched_images
from search.report.importances import chart_importances, ranked, read_importances
from search.report.items import Item, Missing, Numbers, Picture, Section, joined
from search.report.material import Material
from search.report.network_pictures import picture_network
from search.report.parallel import chart_parallel
from search.report.slices import chart_slices, varying
from search.report.timeline import chart_timeline
from search.report.training import chart_training
from search.review.choice_text import describe_choice
from search.review.confirmation_text import HEADER, describe_confirmation, tabulate_confirmation
from search.review.looks_text import describe_looks

_PREPARE = "fmnist data prepare"


@dataclass(frozen=True)
class Content:
    """The sections about ``material``; images are looked for as `fmnist_models.data.data_root` says."""

    material: Material
    data_dir: Path | None

    @cached_property
    def evaluated(self) -> Evaluated | None:
        return None if isinstance(self._evaluated, str) else self._evaluated

    def sections(self) -> list[Section]:
        """All of them, in their order."""
        if self.material.is_cross_validation:
            return self.cross_validation()
        return [*self.search(), *self.confirmation(), self.winner(), self.pictures()]

    def cross_validation(self) -> list[Section]:
        """What the folds of one configuration came to, and how they trained: none wins, or meets test images."""
        return [
            tabulate_estimates(read_result(self.material)),
            Section(
                key="course",
                title="Course of the training",
                items=[chart_curves(self.material), chart_timeline(self.material)],
            ),
        ]

    def search(self) -> list[Section]:
        """What the trials say."""
        found = read_importances(self.material)
        names = varying(self.material, ranked(found))
        return [
            Section(
                key="course",
                title="Course of the search",
                items=[chart_history(self.material), chart_curves(self.material), chart_timeline(self.material)],
            ),
            Section(
                key="hyperparameters",
                title="Hyperparameters",
                items=[
                    chart_importances(found),
                    chart_parallel(self.material, names),
                    chart_slices(self.material, names),
                ],
            ),
        ]

    def confirmation(self) -> list[Section]:
        """What the best trials came to with fresh seeds, if that was asked for."""
        found = self.material.confirmation
        if found is None:
            return []
        table = Numbers(
            caption=f"{found.metric} that the search found, and with fresh seeds: mean ± standard deviation",
            header=HEADER,
            rows=tabulate_confirmation(found),
            folded=False,
        )
        lead = f"{describe_confirmation(found)} Optimism: by how much the search's value was better."
        return [Section(key="confirmation", title="Confirmed with fresh seeds", lead=lead, items=[table])]

    def winner(self) -> Section:
        """What the test set says of the best trial."""
        if isinstance(self._evaluated, str):
            items: list[Item] = [Missing(title="Test result", reason=self._evaluated, command=self._evaluate)]
        else:
            items = self._tested(self._evaluated)
        experiment = self.material.experiment
        lead = joined([*self._remarks, describe_looks(find_looks(experiment), experiment)])
        return Section(key="winner", title="The winner on test images", items=items, lead=lead)

    def pictures(self) -> Section:
        """The pictures of the paper."""
        images = self._images
        items: list[Item | list[Item]] = []
        if isinstance(images, str):
            items.append(Missing(title="Examples and labels", reason=images, command=_PREPARE))
        else:
            items += [picture_examples(images), [*chart_labels(images)], [*picture_families(images)]]
        for pair in chart_training(self.material):
            items.append([*pair] if isinstance(pair, list) else pair)
        best = self.material.experiment.best_config.parent
        items.append([*picture_network(best, images, command=self._evaluate)])
        return Section(
            key="pictures",
            title="The pictures of the paper",
            lead="As in Leopardi, “Fashion-MNIST Image Classification”, of this search's images and networks.",
            items=items,
        )

    @cached_property
    def _evaluated(self) -> Evaluated | str:
        return read_evaluated(self.material.experiment.evaluation)

    @property
    def _remarks(self) -> list[str]:
        material, winner = self.material, self.material.winner
        if winner is None:
            return []
        return describe_choice(
            material.experiment,
            material.settings,
            material.trials,
            winner=winner,
            confirmation=material.confirmation,
        )

    @cached_property
    def _images(self) -> Images | str:
        return load_searched_images(self.material, data_dir=self.data_dir)

    @property
    def _evaluate(self) -> str:
        return f"fmnist evaluate {self.material.experiment.name}"

    def _tested(self, evaluated: Evaluated) -> list[Item]:
        items: list[Item] = []
        best = self.material.winner
        if best is not None and best.number != evaluated.trial:
            reason = f"What follows is of trial {evaluated.trial}; by now trial {best.number} is the best."
            items.append(Missing(title="Another trial", reason=reason, command=self._evaluate))
        names = evaluated.class_names
        items += [chart_classes(estimate_classes(evaluated.confusion, names)), _picture_confusion(evaluated)]
        if evaluated.predictions is None:
            title = "Calibration and wrong images"
            return [*items, Missing(title=title, reason=evaluated.problem, command=self._evaluate)]
        return [
            *items,
            self._wrong(evaluated),
            chart_calibration(evaluated.predictions, temperature=evaluated.temperature),
        ]

    def _wrong(self, evaluated: Evaluated) -> Item:
        title, images, predictions = "Wrong with the highest confidence", self._images, evaluated.predictions
        assert predictions is not None
        if isinstance(images, str):
            return Missing(title=title, reason=images, command=_PREPARE)
        labels = images.test_labels
        if evaluated.class_names != images.class_names or not (
            len(labels) == len(predictions.labels) and (labels == predictions.labels).all()
        ):
            reason = "The test images here are not those that it was tested on."
            return Missing(title=title, reason=reason, command=self._evaluate)
        found = picture_wrong(images, predictions, evaluated.class_names)
        return Missing(title=title, reason="There is none: every test image was right.") if found is None else found


def _picture_confusion(evaluated: Evaluated) -> Picture:
    names, confusion = evaluated.class_names, evaluated.confusion
    off = [(int(confusion[i, j]), i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    most, true, taken = max(off)
    return draw(
        (8.2, 7.6),
        lambda figure: counts_and_shares(figure, confusion, names),
        title="Confusion matrix",
        alt=(
            f"{len(names)} by {len(names)} cells, true classes by predicted ones, each with its count and share. "
            f"{names[true]} was taken for {names[taken]} most often: {most} times. The table below has all of it."
        ),
        numbers=Numbers(
            caption="Confusion matrix: counts, and shares of the true class",
            header=("true \\ predicted", *names),
            rows=[
                (name, *(f"{cell} ({cell / max(int(row.sum()), 1):.0%})" if cell else "0" for cell in row))
                for name, row in zip(names, confusion, strict=True)
            ],
        ),
    )
