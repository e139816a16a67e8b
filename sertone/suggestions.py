"""Help with unknown names: near spellings, and what other programs call the same thing.

A wrong suggestion costs a reader more than none, so only near spellings are suggested. What people look for
under another name has a line in OTHER_NAMES, which says where it is, or that Sertone has no such thing.
"""

import difflib
from collections.abc import Iterable

NEAR = 0.7
"""Least similarity of a suggestion (`difflib`'s ratio): `fusoin` and `fusion` have .83, `lora` and
`coverage` .50."""
BEGINNING = 3
"""Least length of a beginning that counts as near: `tra` of `train`."""


def near(name: str, known: Iterable[str], most: int = 2) -> list[str]:
    """Return the known names that are spelt nearly like `name`, or begin with it; the nearest first.

    Args:
        name: an unknown name, in any case.
        known: names to suggest.
        most: how many to return at most.
    """
    by_lower = {other.lower(): other for other in known}
    wanted = name.lower()
    found = difflib.get_close_matches(wanted, by_lower, most, NEAR)
    if len(wanted) >= BEGINNING:
        found += [other for other in by_lower if other.startswith(wanted) and other not in found]
    return [by_lower[other] for other in found[:most]]


def did_you_mean(name: object, known: Iterable[str], most: int = 2) -> str:
    """Return `did you mean 'fusion'?`; empty where no known name is near.

    Args:
        name: an unknown name.
        known: names to suggest.
        most: how many to suggest at most.
    """
    found = near(str(name), known, most)
    return f"did you mean {' or '.join(map(repr, found))}?" if found else ""


_STOPPING = (
    "early stopping is not a setting: all epochs are trained, and with `protocol.validation: speaker` the "
    "epoch that is best on a held-out speaker is kept"
)
_BATCH = "set `train.batch_size` (utterances) or `train.batch_seconds` (seconds of audio, padding included)"
_EPOCHS = "set `train.epochs`, with one number for each stage of the model, as in [30]"
_RATES = "set `train.learning_rate`: {encoder: 1.0e-5, downstream: 1.0e-4}, or one number in a distillation"
_DROPOUT = "set `model.dropout`; the encoders that are trained from scratch also have `model.encoder.dropout`"
_OPTIMIZER = "the optimizer is always AdamW; set `train.learning_rate` and `train.weight_decay`"
_SCHEDULE = "set `train.schedule` and `train.warmup` (a share of the steps)"
_CLIPPING = "set `train.clip_norm`"
_CLASSES = "the classes follow from the labels: set `data.classes`"
_ADAPTER = "adapters such as LoRA are not available; `model.frozen_layers` trains fewer layers"
_WORKERS = "loading needs no workers to be set; `--jobs` sets how many folds are trained side by side"
_AUGMENTATION = "set `train.speeds` (speed perturbation); `functionals` encoders also have `perturbation`"
_PRECISION = "set `train.precision`: auto, bf16-mixed or 32-true"
_LOSS = "set the weight of each task's loss in `model.tasks`, and `train.class_weights` for rare classes"
_WEIGHTS = "set `train.class_weights: true`"
_FREEZE = "set `model.frozen_layers`: 0 freezes the front end, -1 nothing"
_ENCODER = "set `model.encoder`, as in {name: pretrained, source: microsoft/wavlm-base}"
_SSL = "wav2vec 2.0, HuBERT and WavLM are encoders: {name: pretrained, source: microsoft/wavlm-base}"
_TEACHER = "set `train.teacher`; a file with `teacher` at the top is for `sertone distill`"
_SEEDS = "set `train.seed`; a study has `seeds`, and `sertone ablate --seeds 0 1 2` changes them"
_FOLDS = "set `protocol.folds`, with `protocol.split: grouped_k_fold`"
_MODEL = "set it inside `model`"

OTHER_NAMES = {
    **dict.fromkeys(("early_stopping", "early_stop", "patience", "early_stopping_patience"), _STOPPING),
    **dict.fromkeys(("batch", "bs", "train_batch_size", "per_device_train_batch_size"), _BATCH),
    **dict.fromkeys(("batch_size", "batch_seconds"), _BATCH),
    **dict.fromkeys(("epochs", "max_epochs", "num_epochs", "n_epochs", "num_train_epochs"), _EPOCHS),
    **dict.fromkeys(("lr", "lrs", "rate", "learning_rate", "encoder_lr", "head_lr", "max_lr"), _RATES),
    **dict.fromkeys(("dropout_rate", "dropout_p", "hidden_dropout", "attention_dropout"), _DROPOUT),
    **dict.fromkeys(("optimizer", "optimiser", "optim", "adam", "adamw", "momentum"), _OPTIMIZER),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_scheduler_type", "lr_schedule"), _SCHEDULE),
    **dict.fromkeys(("warmup_steps", "warmup_ratio", "warmup_epochs"), _SCHEDULE),
    **dict.fromkeys(("gradient_clipping", "grad_clip", "max_grad_norm", "clip_grad_norm"), _CLIPPING),
    **dict.fromkeys(("num_labels", "num_classes", "n_classes", "id2label", "label2id"), _CLASSES),
    **dict.fromkeys(("lora", "peft", "adapter", "adapters"), _ADAPTER),
    **dict.fromkeys(("workers", "num_workers", "dataloader_num_workers"), _WORKERS),
    **dict.fromkeys(("augmentation", "augment", "specaugment", "spec_augment"), _AUGMENTATION),
    **dict.fromkeys(("fp16", "bf16", "amp", "mixed_precision"), _PRECISION),
    **dict.fromkeys(("loss", "criterion", "loss_weights"), _LOSS),
    **dict.fromkeys(("class_weight", "weighted_loss"), _WEIGHTS),
    **dict.fromkeys(("freeze", "freeze_encoder", "freeze_feature_encoder", "unfreeze"), _FREEZE),
    **dict.fromkeys(("encoder", "backbone", "model_name", "model_name_or_path", "pretrained"), _ENCODER),
    **dict.fromkeys(("wavlm", "hubert", "wav2vec2", "whisper", "emotion2vec"), _SSL),
    **dict.fromkeys(("random_seed", "random_state", "seeds"), _SEEDS),
    **dict.fromkeys(("n_splits", "n_folds", "num_folds", "k_folds", "kfold"), _FOLDS),
    "teacher": _TEACHER,
    **dict.fromkeys(("tasks", "fusion", "pooling", "hidden", "dropout", "frozen_layers"), _MODEL),
}
"""Name that is no key where somebody wrote it -> where the thing is, or that there is none."""


def elsewhere(name: object) -> str:
    """Return the line of OTHER_NAMES about a name, in any case and with `-` for `_`; empty without one."""
    return OTHER_NAMES.get(str(name).lower().replace("-", "_"), "")
