"""A recipe with its corpus read and split, refused where it could not give a result to believe."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch

from sertone import corpora, licences, models, transcripts
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, Scale, class_names, class_shares
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol import leaks, splits
from sertone.protocol.corpus_split import (
    describe_outside_classes,
    describe_unused_labels,
    select_utterances,
    split_corpus,
)
from sertone.protocol.protocol_card import build_protocol_card, describe_selection, hash_contents
from sertone.protocol.splits import Fold
from sertone.recipe import Recipe
from sertone.schema import Utterance
from sertone.scoring import display
from sertone.sharing.encoder_origin import Origin, find_origin
from sertone.training.data import durations
from sertone.training.experiment import contamination, teachers

LINEAGE_KEYS = ("encoder", "teacher")
"""Parts of a card about what a model comes from."""


@dataclass(frozen=True)
class Experiment:
    """A recipe with its corpus read and split.

    Attributes:
        recipe: as given.
        class_map: emotion -> class.
        utterances: those that take part, with the texts that the recipe chose.
        folds: the splits.
        card: the protocol card.
    """

    recipe: Recipe
    class_map: dict[str, str]
    utterances: list[Utterance]
    folds: list[Fold]
    card: dict = field(repr=False)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        config = models.configure(self.recipe.model)
        return config.predicted_tasks

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none where the model does not answer emotions."""
        return class_names(self.class_map) if "emotion" in self.tasks else []

    @property
    def ratings(self) -> dict[str, Scale]:
        """Scales of the corpus's ratings that the model answers."""
        known = corpora.resolve_scales(self.recipe.data)
        return {name: known[name] for name in self.tasks if name in DIMENSIONS}

    def build_vocabulary(self, number: int) -> Vocabulary:
        """What goes into the model of a fold, and what comes out of it."""
        training = self.folds[number].train
        return models.build_vocabulary(self.recipe.model, training, self.class_map, self.ratings)

    def select_labelled(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Those with a label of one of the tasks that the model is for."""
        return [u for u in utterances if splits.has_label(u, self.tasks)]

    def with_recipe(self, recipe: Recipe) -> Self:
        """The same data and folds with another model or training.

        Raises:
            SertoneError: `no_device`, `no_votes`, `no_validation`, `no_scale`, `encoder_trained_on_test`; as
                `leaks.require_labels`.
        """
        config = models.configure(recipe.model)
        _require_scales(recipe, config.predicted_tasks)
        _require_what_training_needs(recipe, config.predicted_tasks, self.folds, self.class_map)
        chosen = {
            "seed": recipe.train.seed,
            "selection": describe_selection(self.folds, config.predicted_tasks),
        }
        card = {key: value for key, value in self.card.items() if key not in LINEAGE_KEYS} | chosen
        return replace(self, recipe=recipe, card=card).with_past()

    @property
    def origin(self) -> Origin | None:
        """Of the model's speech encoder, where Sertone has trained that."""
        return find_origin(self.recipe.model["encoder"])

    def describe_teachers(self, number: int) -> list[dict[str, Any]]:
        """What the models that teach a fold say of themselves; none without `train.teacher`."""
        teacher = self.recipe.train.teacher
        return teachers.load_descriptions(teacher, number, len(self.folds)) if teacher else []

    def ledger(self, number: int) -> list[dict[str, Any]]:
        """Licences of what the model of a fold is made of."""
        origin = self.origin
        found = licences.build_ledger(
            self.card["corpus"], self.recipe.model, origin.licences if origin else None
        )
        for about in self.describe_teachers(number):
            found += [entry for entry in licences.mark_as_teacher(about["licences"]) if entry not in found]
        return found

    def with_past(self) -> Self:
        """With what its card says of encoder and teacher, which are refused if they know the test sides.

        Raises:
            SertoneError: `encoder_trained_on_test`, `teacher_trained_on_test`, `teacher_mismatch`; where there is none.
        """
        past: dict[str, Any] = {}
        teacher, origin = self.recipe.train.teacher, self.origin
        if origin:
            past["encoder"] = contamination.require_unseen_test(origin, self.folds, self.card)
        if teacher:
            known = (self.folds, self.card, self.classes, self.ratings)
            past["teacher"] = teachers.require_compatible(teacher, *known)
        if "speaker_independent" in self.card["split"]:
            histories = [origin.seen_with_labels if origin else {}, past.get("teacher", {})]
            unknown = contamination.count_unknown_speakers(histories)
            independent = "not known" if unknown else splits.is_speaker_independent(self.utterances)
            past["split"] = self.card["split"] | {"speaker_independent": independent}
        return replace(self, card=self.card | past)


def prepare(
    recipe: Recipe, *, everything: bool = False, say: Callable[[str], None] = lambda _: None
) -> Experiment:
    """Reads and splits the corpus, and refuses what could not give a result to believe.

    Args:
        recipe: the experiment.
        everything: train on all instead of splitting; nothing is left to test on.
        say: told the arithmetic, how many utterances are longer than `data.max_seconds`, and how speech
            recognition is getting on where texts come from there.

    Raises:
        SertoneError: of the recipe, the corpus, the split, a leak, or the texts.
    """
    say(f"arithmetic {recipe.train.arithmetic}")
    config = models.configure(recipe.model)
    data, answers = recipe.data, config.predicted_tasks
    _require_scales(recipe, answers)
    found = corpora.load(data.corpus, data.root, data.only, **data.reader_options)
    mapping, used = select_utterances(found, data, answers)
    for note in (describe_unused_labels(data, found), describe_outside_classes(data, found, mapping)):
        if note and "emotion" in answers:
            say(note)
    used, limit = durations.limit_durations(used, data, say)
    split = split_corpus(used, recipe.protocol, answers, everything=everything)
    folds, hashes = split.folds, split.hashes
    for fold, report in zip(folds, split.leaks, strict=True):
        leaks.require_no_leaks(fold, report)
    _require_what_training_needs(recipe, answers, folds, mapping)
    made_by = (mapping, hashes, split.rule, recipe.train.seed, answers)
    card = build_protocol_card(data, len(found), folds, split.leaks, *made_by)
    if (unknown := display.describe_unknown_speakers(card)) and not everything:
        say(unknown)
    made = Experiment(recipe, mapping, used, folds, card | limit).with_past()
    texts = transcripts.load_transcripts(
        data.text, used, hashes, say, corpora.load_sheet(data.corpus).LANGUAGE
    )
    folds = [Fold(fold.name, *map(texts.attach_to, fold.subsets.values())) for fold in folds]
    used = texts.attach_to(used)
    card = made.card | {"text": texts.card, "contents": hash_contents(used)}
    return replace(made, utterances=used, folds=folds, card=card)


def _require_what_training_needs(
    recipe: Recipe, answers: Sequence[str], folds: list[Fold], mapping: dict[str, str]
) -> None:
    require_device(recipe.train.device)
    for fold in folds:
        leaks.require_labels(fold, mapping, answers)
    if recipe.train.targets == "soft":
        _require_votes(folds, mapping)
    if recipe.train.coverage is not None:
        _require_validation(folds)


def _require_scales(recipe: Recipe, answers: Sequence[str]) -> None:
    known = corpora.resolve_scales(recipe.data)
    for name in answers:
        if name in DIMENSIONS and name not in known:
            raise SertoneError(
                "no_scale",
                f"the model is to rate {name}, whose scale in {recipe.data.corpus} is not known",
                "the lowest and highest rating",
                f"set data.scales: {{{name}: [1, 5]}}, say",
            )


def require_device(device: str) -> None:
    """Refuses `train.device` that this machine does not have.

    Raises:
        SertoneError: `no_device`.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, True):
        raise SertoneError("no_device", f"train.device {device!r}, which torch does not see", "auto or cpu")


def _require_votes(folds: list[Fold], mapping: dict[str, str]) -> None:
    for fold in folds:
        if not any(class_shares(u.votes, mapping) for u in fold.train):
            raise SertoneError(
                "no_votes",
                f"train.targets: soft, and no training utterance of fold {fold.name} has annotators' votes "
                "for one of the classes",
                "votes, such as the columns vote_happy, vote_sad of a manifest",
                "`sertone corpora check` counts them; train.targets: hard does without",
            )


def _require_validation(folds: list[Fold]) -> None:
    if without := [fold.name for fold in folds if not fold.validation]:
        raise SertoneError(
            "no_validation",
            f"train.coverage is set, and fold {without[0]} has no validation speakers",
            "some, who tell which confidence gives that coverage",
            "set protocol.validation: speaker, or leave train.coverage null",
        )
