"""Audio-classification models of Hugging Face as modules: their heads, and the module that is exported.

Axis letters: B batch, N samples, L layers, T frames, D width, K outputs, R dimensions.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model, Wav2Vec2PreTrainedModel

from sertone.nn.encoders.wav2vec2 import Wav2Vec2Encoder

AUDEERING_ARCHITECTURE = "Wav2Vec2ForSpeechClassification"
"""The `architectures` entry in the configuration of audEERING's models."""


class HubPredictionGraph(nn.Module):
    """A model of `transformers` on Sertone's encoder, with normalisation: the module that is exported.

    Args:
        model: its weights are shared.
        normalize: whether it expects waveforms of zero mean and unit variance.
        rates: whether its outputs are ratings; otherwise they are logits of classes.
    """

    def __init__(self, model: Any, normalize: bool, *, rates: bool) -> None:
        super().__init__()
        self.encoder = Wav2Vec2Encoder(model.base_model, normalize)
        self.head = model.classifier if isinstance(model, SpeechClassification) else WeightedHead(model)
        self.rates = rates
        self.eval()

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (B, N) of one length -> probabilities (B, K), ratings (B, R)."""
        hidden, _ = self.encoder(waveforms, torch.full((waveforms.shape[0],), waveforms.shape[1]))
        outputs = self.head(hidden)
        empty = outputs[:, :0]
        return (empty, outputs) if self.rates else (outputs.softmax(-1), empty)


class WeightedHead(nn.Module):
    """The head of `AutoModelForAudioClassification`: hidden states (B, L+1, T, D) -> logits (B, K).

    Args:
        inner: the model to which the head belongs.
    """

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.weights = inner.layer_weights if inner.config.use_weighted_layer_sum else None
        self.projector, self.classifier = inner.projector, inner.classifier

    def forward(self, hidden: Tensor) -> Tensor:
        states = hidden[:, -1]
        if self.weights is not None:
            # One learned weight per layer; the softmax makes them sum to 1.
            states = (hidden * self.weights.softmax(-1)[:, None, None]).sum(1)
        return self.classifier(self.projector(states).mean(1))


class RegressionHead(nn.Module):
    """The head of audEERING's models: hidden states (B, L+1, T, D) -> outputs (B, K)."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, len(config.id2label or ()))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.out_proj(self.dense(hidden[:, -1].mean(1)).tanh())


class SpeechClassification(Wav2Vec2PreTrainedModel):
    """audEERING's layout, which `transformers` lacks; its parts have the names that the weight file uses."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wav2vec2 = Wav2Vec2Model(config)
        self.classifier = RegressionHead(config)
        self.post_init()

    def forward(self, input_values: Tensor) -> SequenceClassifierOutput:
        hidden = self.wav2vec2(input_values).last_hidden_state
        # The head expects an axis of layers.
        return SequenceClassifierOutput(logits=self.classifier(hidden[:, None]))
