"""Write tests/emotion2vec/: a random miniature of emotion2vec+, and its hidden states by FunASR's own class.

    pip install --no-deps --target DIR funasr
    pip install --target DIR omegaconf
    PYTHONPATH=DIR python tests/write_emotion2vec.py

FunASR is no dependency of the tests, since it needs some thirty packages. Its class needs only those above, so
the rest of FunASR is not imported.
"""

import importlib
import sys
import types
from distutils.version import LooseVersion  # noqa: F401 - FunASR imports it; setuptools has it
from importlib.util import find_spec
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

FOLDER = Path(__file__).parent / "emotion2vec"
# Six heads are no power of two, as the twelve of the base model.
CONFIG = yaml.safe_load("""
depth: 2
start_drop_path_rate: 0.0
end_drop_path_rate: 0.0
num_heads: 6
norm_eps: 1.0e-05
norm_affine: true
encoder_dropout: 0.1
post_mlp_drop: 0.1
attention_dropout: 0.1
activation_dropout: 0.0
dropout_input: 0.0
layerdrop: 0.05
embed_dim: 24
mlp_ratio: 2.0
layer_norm_first: false
end_of_block_targets: false
normalize: true
modalities:
  audio:
    feature_encoder_spec: '[(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2'
    extractor_mode: layer_norm
    conv_pos_depth: 3
    conv_pos_width: 15
    conv_pos_groups: 4
    conv_pos_pre_ln: false
    start_drop_path_rate: 0.0
    end_drop_path_rate: 0.0
    prenet_depth: 2
    model_depth: 2
    prenet_layerdrop: 0.05
    prenet_dropout: 0.1
    use_alibi_encoder: true
    alibi_scale: 1.0
    learned_alibi: false
    learned_alibi_scale: true
    learned_alibi_scale_per_head: true
    learned_alibi_scale_per_layer: false
    num_alibi_heads: 6
    num_extra_tokens: 3
    init_extra_token_zero: true
    local_grad_mult: 1.0
    decoder: {decoder_dim: 8, decoder_groups: 4, decoder_kernel: 3, decoder_layers: 1, input_dropout: 0.1,
      decoder_residual: true, projection_layers: 1, projection_ratio: 2.0}
""")


def load_class():
    """Return FunASR's class without the rest of the package."""
    package = types.ModuleType("funasr")
    package.__path__ = list(find_spec("funasr").submodule_search_locations)
    audio = types.ModuleType("funasr.utils.load_utils")
    audio.load_audio_text_image_video = None  # reads sound files, by other packages
    sys.modules |= {"funasr": package, "funasr.utils.load_utils": audio}
    return importlib.import_module("funasr.models.emotion2vec.model").Emotion2vec


@torch.no_grad()
def main():
    torch.manual_seed(0)
    model = load_class()(model_conf=CONFIG, vocab_size=9).eval()
    for parameter in model.parameters():  # norms and biases, too, differ from their first values
        parameter.add_(0.1 * torch.randn_like(parameter))
    model.modality_encoders["AUDIO"].alibi_scale[..., 0, 0, 0] = -0.2  # of the first head: counts as 0
    states = []
    modules = [*model.modality_encoders["AUDIO"].context_encoder.blocks, *model.blocks]
    for module in modules:
        module.register_forward_hook(lambda _, inputs, output: states.append(output[0]))
    waveform = torch.randn(1, 9000).cumsum(1) / 50 + 0.3
    normalised = torch.nn.functional.layer_norm(waveform, waveform.shape)
    features = model.extract_features(normalised)["x"]
    assert torch.equal(features, states[-1][:, 3:])
    FOLDER.mkdir(exist_ok=True)
    hidden = torch.stack([state[0, 3:] for state in states])
    save_file({"waveform": waveform[0], "hidden": hidden}, FOLDER / "states.safetensors")
    (FOLDER / "states.safetensors").chmod(0o644)
    weights = {f"d2v_model.{name}": tensor for name, tensor in model.state_dict().items()}
    weights = {name.replace("d2v_model.proj", "proj"): tensor for name, tensor in weights.items()}
    weights = {name: tensor.contiguous() for name, tensor in weights.items()}
    save_file(weights, FOLDER / "weights.safetensors")
    (FOLDER / "weights.safetensors").chmod(0o644)
    (FOLDER / "config.yaml").write_text(yaml.safe_dump({"model": "Emotion2vec", "model_conf": CONFIG}))


if __name__ == "__main__":
    main()
