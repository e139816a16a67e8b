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
from sertone.protocol.corpus_split import outside_note, split_corpus, take_part, unused_note
from sertone.protocol.protocol_card import contents, protocol_card, selection
from sertone.protocol.splits import Fold
from sertone.recipe import Recipe
from sertone.schema import Utterance
from sertone.scoring import display
from sertone.sharing.encoder_origin import Origin, origin_of
from sertone.training.data import durations
from sertone.training.experiment import contamination, teachers

PAST = ("encoder", "teacher")
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
    def answers(self) -> tuple[str, ...]:
        """The tasks that the model is for."""
        config: Any = models.configure(self.recipe.model)
        return config.answers

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none where the model does not answer emotions."""
        return class_names(self.class_map) if "emotion" in self.answers else []

    @property
    def ratings(self) -> dict[str, Scale]:
        """Scales of the corpus's ratings that the model answers."""
        known = corpora.scales(self.recipe.data)
        return {name: known[name] for name in self.answers if name in DIMENSIONS}

    def vocabulary(self, number: int) -> Vocabulary:
        """What goes into the model of a fold, and what comes out of it."""
        training = self.folds[number].train
        return models.vocabulary(self.recipe.model, training, self.class_map, self.ratings)

    def scored(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Those with a label of one of the tasks that the model is for."""
        return [u for u in utterances if splits.has_label(u, self.answers)]

    def with_recipe(self, recipe: Recipe) -> Self:
        """The same data and folds with another model or training.

        Raises:
            SertoneError: `no_device`, `no_votes`, `no_validation`, `no_scale`, `encoder_heard_test`; as
                `leaks.require_labels`.
        """
        config: Any = models.configure(recipe.model)
        _require_scales(recipe, config.answers)
        _require_what_training_needs(recipe, config.answers, self.folds, self.class_map)
        chosen = {"seed": recipe.train.seed, "selection": selection(self.folds, config.answers)}
        card = {key: value for key, value in self.card.items() if key not in PAST} | chosen
        return replace(self, recipe=recipe, card=card).with_past()

    @property
    def origin(self) -> Origin | None:
        """Of the model's speech encoder, where Sertone has trained that."""
        return origin_of(self.recipe.model["encoder"])

    def teachers(self, number: int) -> list[dict[str, Any]]:
        """What the models that teach a fold say of themselves; none without `train.teacher`."""
        teacher = self.recipe.train.teacher
        return teachers.abouts(teacher, number, len(self.folds)) if teacher else []

    def ledger(self, number: int) -> list[dict[str, Any]]:
        """Licences of what the model of a fold is made of."""
        origin = self.origin
        found = licences.ledger(self.card["corpus"], self.recipe.model, origin.licences if origin else None)
        for about in self.teachers(number):
            found += [entry for entry in licences.of_teacher(about["licences"]) if entry not in found]
        return found

    def with_past(self) -> Self:
        """With what its card says of encoder and teacher, which are refused if they know the test sides.

        Raises:
            SertoneError: `encoder_heard_test`, `teacher_heard_test`, `unlike_teacher`; where there is none.
        """
        past: dict[str, Any] = {}
        teacher, origin = self.recipe.train.teacher, self.origin
        if origin:
            past["encoder"] = contamination.require_unheard(origin, self.folds, self.card)
        if teacher:
            known = (self.folds, self.card, self.classes, self.ratings)
            past["teacher"] = teachers.require_fit(teacher, *known)
        if "speaker_independent" in self.card["split"]:
            histories = [origin.heard if origin else {}, past.get("teacher", {})]
            unknown = contamination.unknown_speakers(histories)
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
    config: Any = models.configure(recipe.model)
    data, answers = recipe.data, config.answers
    _require_scales(recipe, answers)
    found = corpora.load(data.corpus, data.root, data.only, **data.reader_options)
    mapping, used = take_part(found, data, answers)
    for note in (unused_note(data, found), outside_note(data, found, mapping)):
        if note and "emotion" in answers:
            say(note)
    used, limit = durations.limited(used, data, say)
    split = split_corpus(used, recipe.protocol, answers, everything=everything)
    folds, hashes = split.folds, split.hashes
    for fold, report in zip(folds, split.leaks, strict=True):
        leaks.require_none(fold, report)
    _require_what_training_needs(recipe, answers, folds, mapping)
    made_by = (mapping, hashes, split.rule, recipe.train.seed, answers)
    card = protocol_card(data, len(found), folds, split.leaks, *made_by)
    if (unknown := display.unknown_in_words(card)) and not everything:
        say(unknown)
    made = Experiment(recipe, mapping, used, folds, card | limit).with_past()
    texts = transcripts.texts(data.text, used, hashes, say, corpora.sheet(data.corpus).LANGUAGE)
    folds = [Fold(fold.name, *map(texts.given, fold.sides.values())) for fold in folds]
    used = texts.given(used)
    card = made.card | {"text": texts.card, "contents": contents(used)}
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
    known = corpora.scales(recipe.data)
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
