"""Models with random weights on disk: checkpoints of Sertone, and folders as the hub has them."""

import torch
from test_ispas2023 import SCALES, UTTERANCES

from sertone import models
from sertone.labels import FOUR_CLASSES
from sertone.scoring.calibration import Calibration
from sertone.training.fit.checkpoint import save_model

COMPACT = {"name": "compact", "width": 16, "depth": 2, "attention_heads": 2}
TEXT = {"name": "tiny", "width": 24, "depth": 1, "attention_heads": 2, "subwords": 120}
TOY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
}


def write_checkpoint(folder, experiment, seed=0, temperature=1.5, fold=0, **values):
    """Write a checkpoint whose outputs vary like those of a trained model: its heads have large weights."""
    vocabulary = models.build_vocabulary(values, UTTERANCES, FOUR_CLASSES, SCALES)
    torch.manual_seed(seed)
    model = models.build(values, vocabulary)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("heads.", "regressors.")) and weight.ndim > 1:
                weight.mul_(4.0)
    card = experiment.card | {
        "fold": experiment.folds[fold].name,
        "heard": {"recordings": [], "speakers": []},
    }
    if model.text:
        card["text"] = {"source": "corpus", "with_text": 3, "without_text": 1}
    calibration = Calibration(temperature=temperature, threshold=0.4)
    save_model(folder, model, values, vocabulary, card, calibration, experiment.ledger(0))
    return folder


def write_hub_folder(
    folder, family="wav2vec2", labels=("neu", "hap", "ang", "sad"), normalize=True, **config
):
    """Write an audio-classification checkpoint as `save_pretrained` does."""
    from transformers import AutoConfig, AutoModelForAudioClassification

    names = dict(enumerate(labels))
    config = AutoConfig.for_model(family, **TOY, id2label=names, **config)
    torch.manual_seed(0)
    return save_hub_folder(folder, AutoModelForAudioClassification.from_config(config), normalize)


def save_hub_folder(folder, model, normalize=True):
    from transformers import Wav2Vec2FeatureExtractor

    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(8.0)
    model.save_pretrained(folder)
    mask = getattr(model.config, "feat_extract_norm", "layer") == "layer"
    Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=mask).save_pretrained(folder)
    return folder
