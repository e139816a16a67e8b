"""Prepare an experiment: read the corpus, split it, check it for leaks, describe it in a protocol card."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from sertone import corpora, licences, models, transcripts
from sertone.errors import SertoneError
from sertone.labels import DIMENSIONS, Scale, class_names, class_shares
from sertone.nn.vocabulary import Vocabulary
from sertone.protocol import leaks, splits
from sertone.protocol.corpus_split import (
    CorpusSplit,
    describe_outside_classes,
    describe_unused_labels,
    select_utterances,
    split_corpus,
)
from sertone.protocol.protocol_card import build_protocol_card, describe_selection, hash_contents
from sertone.protocol.splits import Fold
from sertone.recipe import DataConfig, Recipe
from sertone.schema import Utterance
from sertone.scoring import display
from sertone.sharing.encoder_origin import Origin, find_origin
from sertone.training.data import durations
from sertone.training.experiment import contamination, teachers
from sertone.training.fit.distributed import require_device

LINEAGE_KEYS = ("encoder", "teacher")
"""The parts of a card about the models that a model is built from."""


@dataclass(frozen=True)
class Experiment:
    """A recipe with its corpus, which is read and split.

    Attributes:
        recipe: the recipe.
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
        """The main tasks of the model, without auxiliary ones."""
        return _configure_tasks(self.recipe)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none for a model without emotions."""
        return class_names(self.class_map) if "emotion" in self.tasks else []

    @property
    def ratings(self) -> dict[str, Scale]:
        """The corpus's scales of the ratings that the model predicts."""
        scales = corpora.resolve_scales(self.recipe.data)
        return {name: scales[name] for name in self.tasks if name in DIMENSIONS}

    def build_vocabulary(self, number: int) -> Vocabulary:
        """Return the labels and tokens of a fold's model, from its training set."""
        training = self.folds[number].train
        return models.build_vocabulary(self.recipe.model, training, self.class_map, self.ratings)

    def select_labelled(self, utterances: Iterable[Utterance]) -> list[Utterance]:
        """Return the utterances with a label of one of the main tasks."""
        return [u for u in utterances if splits.has_label(u, self.tasks)]

    def with_recipe(self, recipe: Recipe) -> Self:
        """Return an experiment with the same data and folds, and another model or training.

        Raises:
            SertoneError: `no_device`, `no_votes`, `no_validation`, `no_scale`, `encoder_trained_on_test`; as
                `leaks.require_labels`.
        """
        tasks = _configure_tasks(recipe)
        _require_scales(recipe, tasks)
        _require_trainable(recipe, tasks, self.folds, self.class_map)
        card = {key: value for key, value in self.card.items() if key not in LINEAGE_KEYS}
        card |= {"seed": recipe.train.seed, "selection": describe_selection(self.folds, tasks)}
        return replace(self, recipe=recipe, card=card).with_lineage()

    @property
    def origin(self) -> Origin | None:
        """The origin of the model's speech encoder, if Sertone has trained it."""
        return find_origin(self.recipe.model["encoder"])

    def describe_teachers(self, number: int) -> list[dict[str, Any]]:
        """Return `checkpoint.json` of the models that teach a fold; none without `train.teacher`."""
        teacher = self.recipe.train.teacher
        return teachers.load_descriptions(teacher, number, len(self.folds)) if teacher else []

    def ledger(self, number: int) -> list[dict[str, Any]]:
        """Return the licences of everything that the model of a fold is built from."""
        origin = self.origin
        inherited = origin.licences if origin else None
        entries = licences.build_ledger(self.card["corpus"], self.recipe.model, inherited)
        for about in self.describe_teachers(number):
            marked = licences.mark_as_teacher(about["licences"])
            entries += [entry for entry in marked if entry not in entries]
        return entries

    def with_lineage(self) -> Self:
        """Refuse an encoder or teacher that was trained on a test set, and describe both in the card.

        Raises:
            SertoneError: `encoder_trained_on_test`, `teacher_trained_on_test`, `teacher_mismatch`; where a
                model does not exist.
        """
        entries: dict[str, Any] = {}
        teacher, origin = self.recipe.train.teacher, self.origin
        if origin:
            entries["encoder"] = contamination.require_unseen_test(origin, self.folds, self.card)
        if teacher:
            entries["teacher"] = teachers.require_compatible(
                teacher, self.folds, self.card, self.classes, self.ratings
            )
        if "speaker_independent" in self.card["split"]:
            records = [origin.seen_with_labels if origin else {}, entries.get("teacher", {})]
            # An encoder or teacher may have seen unknown speakers, who may be in the test set.
            unknown = contamination.count_unknown_speakers(records)
            independent = "not known" if unknown else splits.is_speaker_independent(self.utterances)
            entries["split"] = self.card["split"] | {"speaker_independent": independent}
        return replace(self, card=self.card | entries)


def prepare(
    recipe: Recipe, *, everything: bool = False, say: Callable[[str], None] = lambda _: None
) -> Experiment:
    """Read and split the corpus of a recipe, and refuse an experiment whose result could not be trusted.

    Args:
        recipe: the experiment.
        everything: train on all utterances instead of splitting them; nothing is left to test on.
        say: receives lines about the arithmetic, labels without a class, utterances longer than
            `data.max_seconds`, unknown speakers, and the progress of speech recognition where it gives the
            texts.

    Raises:
        SertoneError: the recipe, the corpus, the split or the texts cannot be used, or speakers leak.
    """
    say(f"arithmetic {recipe.train.arithmetic}")
    tasks = _configure_tasks(recipe)
    _require_scales(recipe, tasks)  # before reading, which may take long
    corpus = _load_corpus(recipe.data, tasks, say)
    split = split_corpus(corpus.utterances, recipe.protocol, tasks, everything=everything)
    for fold, report in zip(split.folds, split.leaks, strict=True):  # also official splits may leak
        leaks.require_no_leaks(fold, report)
    _require_trainable(recipe, tasks, split.folds, corpus.class_map)
    card = _build_card(recipe, corpus, split, tasks)
    unknown = display.describe_unknown_speakers(card)
    if unknown and not everything:
        say(unknown)
    # Speech recognition may take hours, so the texts come after everything that may refuse the experiment.
    experiment = Experiment(recipe, corpus.class_map, corpus.utterances, split.folds, card)
    return _add_texts(experiment.with_lineage(), split.hashes, say)


class _Corpus(NamedTuple):
    """The utterances of a corpus that take part.

    Attributes:
        size: number of utterances in the corpus.
        class_map: emotion -> class.
        utterances: those that take part, limited to `data.max_seconds`.
        limit: the entry of the protocol card about that limit.
    """

    size: int
    class_map: dict[str, str]
    utterances: list[Utterance]
    limit: dict[str, Any]


def _load_corpus(data: DataConfig, tasks: Sequence[str], say: Callable[[str], None]) -> _Corpus:
    """Read the corpus, map its emotions to classes, and limit the durations."""
    utterances = corpora.load(data.corpus, data.root, data.only, **data.reader_options)
    class_map, selected = select_utterances(utterances, data, tasks)
    if "emotion" in tasks:
        notes = (
            describe_unused_labels(data, utterances),
            describe_outside_classes(data, utterances, class_map),
        )
        for note in filter(None, notes):
            say(note)
    limited, limit = durations.limit_durations(selected, data, say)
    return _Corpus(len(utterances), class_map, limited, limit)


def _build_card(recipe: Recipe, corpus: _Corpus, split: CorpusSplit, tasks: Sequence[str]) -> dict[str, Any]:
    card = build_protocol_card(
        recipe.data,
        corpus.size,
        split.folds,
        split.leaks,
        corpus.class_map,
        split.hashes,
        split.rule,
        recipe.train.seed,
        tasks,
    )
    return card | corpus.limit


def _add_texts(experiment: Experiment, hashes: dict[str, str], say: Callable[[str], None]) -> Experiment:
    """Return the experiment with the texts that the recipe chooses, for example from speech recognition."""
    data, utterances = experiment.recipe.data, experiment.utterances
    language = corpora.load_sheet(data.corpus).LANGUAGE
    texts = transcripts.load_transcripts(data.text, utterances, hashes, say, language)
    folds = [Fold(fold.name, *map(texts.attach_to, fold.subsets.values())) for fold in experiment.folds]
    utterances = texts.attach_to(utterances)
    card = experiment.card | {"text": texts.card, "contents": hash_contents(utterances)}
    return replace(experiment, utterances=utterances, folds=folds, card=card)


def _configure_tasks(recipe: Recipe) -> tuple[str, ...]:
    """Return the main tasks of a recipe's model.

    Raises:
        SertoneError: as `models.configure`.
    """
    return models.configure(recipe.model).main_tasks


def _require_trainable(
    recipe: Recipe, tasks: Sequence[str], folds: list[Fold], class_map: dict[str, str]
) -> None:
    """Refuse a recipe whose device, labels, votes or validation speakers are missing."""
    require_device(recipe.train.device, recipe.train.precision)
    for fold in folds:
        leaks.require_labels(fold, class_map, tasks)
    if recipe.train.targets == "soft":
        _require_votes(folds, class_map)
    for setting, purpose in NEEDS_VALIDATION.items():
        if getattr(recipe.train, setting) is not None:
            _require_validation(folds, setting, purpose)
    if recipe.train.sampling == "balanced" and "emotion" not in tasks:
        raise SertoneError(
            "no_classes",
            "train.sampling: balanced, but the model predicts no emotion classes",
            "a model with the task emotion",
            "set train.sampling: each",
        )


def _require_scales(recipe: Recipe, tasks: Sequence[str]) -> None:
    scales = corpora.resolve_scales(recipe.data)
    for name in tasks:
        if name in DIMENSIONS and name not in scales:
            raise SertoneError(
                "no_scale",
                f"the model predicts {name}, whose scale in {recipe.data.corpus} is not known",
                "the lowest and highest rating",
                f"set data.scales, for example {{{name}: [1, 5]}}",
            )


def _require_votes(folds: list[Fold], class_map: dict[str, str]) -> None:
    for fold in folds:
        if not any(class_shares(u.votes, class_map) for u in fold.train):
            raise SertoneError(
                "no_votes",
                f"train.targets is soft, and no training utterance of fold {fold.name} has annotators' votes "
                "for one of the classes",
                "votes, such as the columns vote_happy, vote_sad of a manifest",
                "`sertone corpora check` counts votes; set train.targets: hard to train without them",
            )


NEEDS_VALIDATION = {
    "coverage": "set the confidence threshold for that coverage",
    "patience": "decide when a stage ends",
}
"""Setting of `train` that needs validation speakers -> what they do."""


def _require_validation(folds: list[Fold], setting: str, purpose: str) -> None:
    without = [fold.name for fold in folds if not fold.validation]
    if without:
        raise SertoneError(
            "no_validation",
            f"train.{setting} is set, and fold {without[0]} has no validation speakers",
            f"validation speakers, who {purpose}",
            f"set protocol.validation: speaker, or leave train.{setting} null",
        )
