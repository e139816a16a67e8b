"""Help with unknown names: near spellings, and what other programs call the same thing.

A wrong suggestion costs a reader more than none, so only near spellings are suggested. What people look for
under another name has a line in ELSEWHERE, which says where it is, or that Sertone has no such thing.
"""

import difflib
from collections.abc import Iterable

NEAR = 0.7
"""Least similarity of a suggestion (`difflib`'s ratio): `fusoin` and `fusion` have .83, `lora` and
`coverage` .50."""
BEGINNING = 3
"""Least length of a beginning that counts as near: `tra` of `train`."""


def find_near(name: str, known: Iterable[str], most: int = 2) -> list[str]:
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
    found = find_near(str(name), known, most)
    return f"did you mean {' or '.join(map(repr, found))}?" if found else ""


ELSEWHERE = {
    (
        "early stopping is not a setting: all epochs are trained, and with `protocol.validation: "
        "speaker` the epoch that is best on a held-out speaker is kept"
    ): "early_stopping early_stop patience early_stopping_patience",
    "set `train.batch_size` (utterances) or `train.batch_seconds` (seconds of audio, padding included)": (
        "batch bs train_batch_size per_device_train_batch_size batch_size batch_seconds"
    ),
    "set `train.epochs`, with one number for each stage of the model, as in [30]": (
        "epochs max_epochs num_epochs n_epochs num_train_epochs"
    ),
    "set `train.learning_rate`: {encoder: 1.0e-5, downstream: 1.0e-4}, or one number in a distillation": (
        "lr lrs rate learning_rate encoder_lr head_lr max_lr"
    ),
    "set `model.dropout`; the encoders that are trained from scratch also have `model.encoder.dropout`": (
        "dropout_rate dropout_p hidden_dropout attention_dropout"
    ),
    "the optimizer is always AdamW; set `train.learning_rate` and `train.weight_decay`": (
        "optimizer optimiser optim adam adamw momentum"
    ),
    "set `train.schedule` and `train.warmup` (a share of the steps)": (
        "scheduler lr_scheduler lr_scheduler_type lr_schedule warmup_steps warmup_ratio warmup_epochs"
    ),
    "set `train.clip_norm`": "gradient_clipping grad_clip max_grad_norm clip_grad_norm",
    "the classes follow from the labels: set `data.classes`": (
        "num_labels num_classes n_classes id2label label2id"
    ),
    "adapters such as LoRA are not available; `model.frozen_layers` trains fewer layers": (
        "lora peft adapter adapters"
    ),
    "loading needs no workers to be set; `--jobs` sets how many folds are trained side by side": (
        "workers num_workers dataloader_num_workers"
    ),
    "set `train.speeds` and `train.augmentation`; `functionals` encoders also have `perturbation`": (
        "augmentation augment specaugment spec_augment"
    ),
    "set `train.precision`: auto, bf16-mixed or 32-true": "fp16 bf16 amp mixed_precision",
    "set the weight of each task's loss in `model.tasks`, and `train.class_weights` for rare classes": (
        "loss criterion loss_weights"
    ),
    "set `train.class_weights: true`": "class_weight weighted_loss",
    "set `model.frozen_layers`: 0 freezes the front end, -1 nothing": (
        "freeze freeze_encoder freeze_feature_encoder unfreeze"
    ),
    "set `model.encoder`, as in {name: pretrained, source: microsoft/wavlm-base}": (
        "encoder backbone model_name model_name_or_path pretrained"
    ),
    "wav2vec 2.0, HuBERT and WavLM are encoders: {name: pretrained, source: microsoft/wavlm-base}": (
        "wavlm hubert wav2vec2 whisper emotion2vec"
    ),
    "set `train.seed`; a study has `seeds`, and `sertone ablate --seeds 0 1 2` changes them": (
        "random_seed random_state seeds"
    ),
    "set `protocol.folds`, with `protocol.split: grouped_k_fold`": (
        "n_splits n_folds num_folds k_folds kfold"
    ),
    "set `data.max_seconds`, and with `data.longer` whether longer utterances are cut or left out": (
        "max_length max_duration max_len max_audio_length"
    ),
    "set `train.teacher`; a file with `teacher` at the top is for `sertone distill`": "teacher",
    "only some models have it, inside `model`": "tasks fusion pooling hidden dropout frozen_layers",
}
"""Where a thing is, or that there is none -> the names under which people look for it."""
OTHER_NAMES = {name: line for line, names in ELSEWHERE.items() for name in names.split()}


def explain_name(name: object) -> str:
    """Return the line of ELSEWHERE about a name, in any case and with `-` for `_`; empty without one."""
    return OTHER_NAMES.get(str(name).lower().replace("-", "_"), "")
