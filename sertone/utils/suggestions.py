"""Suggestions for unknown names: similar spellings, and the names that other programs use.

A wrong suggestion costs a reader more than no suggestion, so only similar spellings are suggested. The table
ELSEWHERE explains settings that other programs call differently or that Sertone does not have.
"""

import difflib
from collections.abc import Iterable

MIN_SIMILARITY = 0.7
"""Smallest similarity of a suggestion (`difflib`'s ratio): `fusoin` and `fusion` have .83, `lora` and
`coverage` .50."""
MIN_PREFIX = 3
"""Shortest prefix that counts as similar: `tra` of `train`."""


def find_near(name: str, known: Iterable[str], most: int = 2) -> list[str]:
    """Return the known names that are spelt like `name` or begin with it, most similar first.

    Args:
        name: an unknown name, in upper or lower case.
        known: names to suggest.
        most: largest number of suggestions.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    wanted = name.lower()
    matches = difflib.get_close_matches(wanted, by_lower, most, MIN_SIMILARITY)
    # An abbreviation is no similar spelling by difflib's ratio, so prefixes are looked up as well.
    if len(wanted) >= MIN_PREFIX:
        matches += [candidate for candidate in by_lower if candidate.startswith(wanted)]
    return [by_lower[match] for match in dict.fromkeys(matches)][:most]


def did_you_mean(name: object, known: Iterable[str], most: int = 2) -> str:
    """Return a question such as `did you mean 'fusion'?`; empty if no known name is similar.

    Args:
        name: an unknown name.
        known: names to suggest.
        most: largest number of suggestions.
    """
    suggestions = find_near(str(name), known, most)
    return f"did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""


ELSEWHERE = {
    (
        "set `train.patience`, a number of epochs, and `protocol.validation: speaker`, whose score decides"
    ): "early_stopping early_stop early_stopping_patience",
    "set `train.batch_size` (utterances) or `train.batch_seconds` (seconds of audio, padding included)": (
        "batch bs train_batch_size per_device_train_batch_size batch_size batch_seconds"
    ),
    "set `train.epochs`, one number for each training stage, as in [30]": (
        "epochs max_epochs num_epochs n_epochs num_train_epochs"
    ),
    "set `train.learning_rate`: {encoder: 1.0e-5, downstream: 1.0e-4}, or one number in a distillation": (
        "lr lrs rate learning_rate encoder_lr head_lr max_lr"
    ),
    "set `model.dropout`; encoders trained from scratch also have `model.encoder.dropout`": (
        "dropout_rate dropout_p hidden_dropout attention_dropout"
    ),
    "the optimizer is always AdamW; set `train.learning_rate` and `train.weight_decay`": (
        "optimizer optimiser optim adam adamw momentum"
    ),
    "set `train.schedule` and `train.warmup` (a fraction of the steps)": (
        "scheduler lr_scheduler lr_scheduler_type lr_schedule warmup_steps warmup_ratio warmup_epochs"
    ),
    "set `train.clip_norm`": "gradient_clipping grad_clip max_grad_norm clip_grad_norm",
    "the classes follow from the labels: set `data.classes`": (
        "num_labels num_classes n_classes id2label label2id"
    ),
    "set `train.lora`, as in {rank: 8}": "peft adapter adapters lora_rank lora_r lora_alpha",
    "set `train.accumulate`": "gradient_accumulation_steps accumulate_grad_batches grad_accum accumulation",
    "set `train.ema`, the decay of the average": "ema_decay model_ema swa",
    "set `train.layer_decay`": "llrd layerwise_lr_decay layer_wise_lr_decay",
    "set `train.focal_gamma`": "focal focal_loss gamma",
    "set `train.sampling: balanced`": "sampler balanced weighted_sampler oversampling",
    "set `train.log`, as in [tensorboard]": "logger loggers report_to tensorboard wandb mlflow",
    "loading has no workers to set; `--jobs` sets how many folds are trained in parallel": (
        "workers num_workers dataloader_num_workers"
    ),
    "set `train.speeds`, `train.augmentation`, `train.perturb`; `functionals` encoders have `perturbation`": (
        "augmentation augment augmentations specaugment spec_augment"
    ),
    "set `train.perturb`, as in {noise: {snr_db: [5, 30]}, reverb: {}, codec: {}}": (
        "noise add_noise snr musan reverb reverberation rir codec telephone robustness"
    ),
    "set `train.precision`: auto, bf16-mixed, 16-mixed or 32-true": "fp16 bf16 amp mixed_precision",
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
    "wav2vec 2.0, HuBERT, WavLM and Whisper are encoders: {name: pretrained, source: openai/whisper-base}": (
        "wavlm hubert wav2vec2 whisper"
    ),
    "set `model.encoder`, as in {name: emotion2vec, source: emotion2vec/emotion2vec_plus_base}": (
        "emotion2vec"
    ),
    "set `train.seed`; a study has `seeds`, and `sertone ablate --seeds 0 1 2` changes them": (
        "random_seed random_state seeds"
    ),
    "set `protocol.folds`, with `protocol.split: grouped_k_fold`": (
        "n_splits n_folds num_folds k_folds kfold"
    ),
    "set `data.max_seconds`; `data.longer` says whether longer utterances are cut or left out": (
        "max_length max_duration max_len max_audio_length"
    ),
    "set `train.teacher`; a file with `teacher` at the top level is for `sertone distill`": "teacher",
    "only some models have this setting, inside `model`": (
        "tasks fusion pooling hidden dropout frozen_layers"
    ),
}
"""Explanation of a setting, or that Sertone has none -> the names that people look for."""
OTHER_NAMES = {name: explanation for explanation, names in ELSEWHERE.items() for name in names.split()}


def explain_name(name: object) -> str:
    """Return the explanation of a name in ELSEWHERE; empty without one. Case and hyphens do not matter."""
    return OTHER_NAMES.get(str(name).lower().replace("-", "_"), "")
