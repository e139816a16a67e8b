"""Models: every option runs, every stage trains what it should, and missing labels add no loss."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_MODEL

from sertone import models
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES
from sertone.models import wan2025
from sertone.nn.batch import Batch
from sertone.nn.encoders.base import Prefix
from sertone.nn.fusions import FUSIONS
from sertone.nn.state_norms import standardise_utterances
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe.train_config import TrainConfig
from sertone.schema import Utterance
from sertone.training.fit import distributed

TASKS = ("gender", "speaker", "style", "asr")
SUBSETS = [s for n in range(5) for s in combinations(TASKS, n)]
LABELS = {"gender": "male", "style": "scripted"}
UTTERANCES = [
    Utterance(id="1", path=Path("1"), speaker="x", labels=LABELS | {"emotion": "sad"}, text="ab"),
    Utterance(id="2", path=Path("2"), speaker="y", labels={"emotion": "excited"}),
    Utterance(
        id="3", path=Path("3"), speaker="y", labels={"gender": "female", "style": "improvised"}, text="ba b"
    ),
]
VOCABULARY = Vocabulary.from_utterances(UTTERANCES, FOUR_CLASSES)


def build(**options):
    torch.manual_seed(0)
    return models.build(TINY_MODEL | options, VOCABULARY)


def batch(utterances=UTTERANCES):
    waveforms = torch.randn(3, 9000, generator=torch.Generator().manual_seed(1))[: len(utterances)]
    lengths = torch.tensor([9000, 7000, 5000])[: len(utterances)]
    mask = torch.arange(9000) < lengths[:, None]
    targets = {t: VOCABULARY.make_targets(t, utterances) for t in (*TASKS, "emotion")}
    return Batch(waveforms * mask * 0.1, lengths, targets)


def compute_loss(model, stage, data):
    outputs = model(data)
    return sum(w * model.heads[t].loss(outputs[t], data.targets[t]) for t, w in stage.weights.items())


def list_trained(model):
    return {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("subset", SUBSETS, ids=lambda s: "+".join(s) or "none")
@pytest.mark.parametrize("co_attention", [True, False])
def test_every_subset_of_auxiliary_tasks(subset, co_attention):
    model = build(tasks={t: float(t in subset) for t in TASKS}, co_attention=co_attention)
    assert set(model.heads) == {*subset, "emotion"}
    assert [set(s.weights) for s in model.stages()] == [{*subset}, {*subset, "emotion"}][not subset :]
    for stage in model.stages():
        loss = compute_loss(model, stage, batch())
        assert loss.isfinite() and loss > 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion(fusion):
    model = build(fusion=fusion)
    outputs = model(batch())
    assert outputs["emotion"].logits.shape == (3, 4) and outputs["asr"].logits.shape[0] == 3


def test_the_stages_train_what_the_paper_says():
    model = build(fusion="ari_full", frozen_layers=1)
    first, second = model.stages()
    for stage in (first, second):
        model.requires_grad_(True)
        model.zero_grad()
        model.encoder.freeze(stage.cut)
        compute_loss(model, stage, batch()).backward()
        moved = list_trained(model)
        parts = {name.split(".")[0] for name in moved}
        layers = {name.split(".")[2] for name in moved if name.startswith("encoder.layers")}
        if stage is first:
            assert not any(name.startswith(("heads.emotion", "co_attention")) for name in moved)
            assert layers == {"0", "1"} and {"fusion", "heads"} <= parts
        else:
            assert {"fusion", "co_attention", "heads"} <= parts and layers == {"1"}
            assert any(name.startswith("heads.emotion") for name in moved)


def test_the_fusion_can_be_frozen_in_stage_1():
    first, second = build(freeze_fusion_in_stage_1=True).stages()
    assert "fusion" in first.frozen and second.frozen == ()
    usual, _ = build().stages()
    assert set(usual.frozen) == {"heads.emotion", "pooling", "co_attention"}, "what stage 1 has no loss for"


LATER = {"co_attention": False, "pooled_features": False, "pooling": "statistics", "frozen_layers": 2}


@pytest.mark.parametrize("option", wan2025.Config.later_options)
def test_the_first_stage_does_not_depend_on_later_options(option):
    """Same seed, dropout on: the same loss and the same gradients, so that studies may share the stage."""
    sides = []
    for changes in ({}, {option: LATER[option]}):
        torch.manual_seed(0)
        model = build(dropout=0.3, **changes).train()
        stage = model.stages()[0]
        torch.manual_seed(1)
        outputs = model(batch(), tuple(stage.weights))
        targets = batch().targets
        losses = [w * model.heads[t].loss(outputs[t], targets[t]) for t, w in stage.weights.items()]
        torch.stack(losses).sum().backward()
        kept = {n: p for n, p in model.named_parameters() if not n.startswith(tuple(stage.frozen))}
        sides.append((torch.stack(losses), {n: p.grad for n, p in kept.items()}))
    assert torch.equal(sides[0][0], sides[1][0]) and sides[0][1].keys() == sides[1][1].keys()
    for name, gradient in sides[0][1].items():
        assert (gradient is None) == (sides[1][1][name] is None)
        assert gradient is None or torch.equal(gradient, sides[1][1][name]), name
    assert set(LATER) == set(wan2025.Config.later_options)


def test_outputs_do_not_depend_on_the_rest_of_the_batch():
    for options in ({}, {"pooling": "statistics"}, {"name": "baseline"}):
        values = TINY_MODEL | options
        if options.get("name") == "baseline":
            values = {k: values[k] for k in ("name", "encoder", "hidden")}
        torch.manual_seed(0)
        model = models.build(values, VOCABULARY).eval()
        together = model(batch())["emotion"].logits
        data = batch()
        for row in range(3):
            n = int(data.lengths[row])
            alone = model(Batch(data.waveforms[row : row + 1, :n], data.lengths[row : row + 1]))
            torch.testing.assert_close(alone["emotion"].logits[0], together[row], atol=1e-5, rtol=1e-5)


def test_a_known_prefix_gives_the_same_output():
    model = build().eval()
    model.encoder.freeze(1)
    data = batch()
    known = Batch(
        data.waveforms[:, :0], data.lengths, prefix=model.encoder.prefix(data.waveforms, data.lengths)
    )
    for precision, tolerance in (("32-true", 0.0), ("bf16-mixed", 5e-3)):  # the prefix was made in float32
        config = TrainConfig(batch_size=1, device="cpu", precision=precision)
        ready: Any = distributed.make_fabric(config).setup(model)
        actual, expected = (ready(b)["emotion"].logits for b in (known.to("cpu"), data))
        torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def test_without_the_pooled_path_the_emotion_head_sees_the_co_attention_alone():
    """Weighted features (16) and four auxiliary hidden layers (16 each); every weight of stage 2 is trained."""
    model = build(pooled_features=False, pooling="attentive")
    assert model.heads["emotion"].inner[1].in_features == 16 + 4 * 16 and model.pooling is None
    assert "pooling" not in model.stages()[0].frozen
    compute_loss(model, model.stages()[1], batch()).backward()
    unmoved = {name for name, p in model.named_parameters() if p.grad is None}
    assert not unmoved and model.co_attention.query.weight.grad.any()
    for left in ({"co_attention": False}, {"tasks": dict.fromkeys(TASKS, 0.0)}):
        with pytest.raises(SertoneError, match="leaves the emotion head nothing"):
            build(pooled_features=False, **left)


def test_the_baseline_of_the_paper_is_one_linear_layer():
    """Its logits are a linear function of the mean of the last layer."""
    torch.manual_seed(0)
    values = {"name": "baseline", "encoder": TINY_MODEL["encoder"], "hidden": None}
    model, data = models.build(values, VOCABULARY).eval(), batch()
    hidden, frames = data.encode(model.encoder)
    (linear,) = (m for m in model.heads.modules() if isinstance(m, torch.nn.Linear))
    means = torch.stack([h[-1, :n].mean(0) for h, n in zip(hidden, frames, strict=True)])
    expected = means @ linear.weight.T + linear.bias
    torch.testing.assert_close(model(data)["emotion"].logits, expected, atol=1e-5, rtol=1e-5)
    names = set(model.heads.state_dict())
    assert names == {"emotion.output.1.weight", "emotion.output.1.bias"}
    usual = models.build(values | {"hidden": 16}, VOCABULARY).heads.state_dict()
    assert set(usual) == names | {"emotion.inner.1.weight", "emotion.inner.1.bias"}, "as in older checkpoints"


AUDIO_ONLY = {"text": None, "attention_heads": 4, "tasks": {"valence": 0, "arousal": 0}}


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("name", ["baseline", "wan2025", "ispas2023"])
def test_every_fusion_learns_from_the_layers_that_its_cache_holds(name, fusion):
    """Hidden states that a stage does not name are NaN in a cached prefix."""
    values = {"name": name, "encoder": TINY_MODEL["encoder"], "fusion": fusion, "output_norm": "frame"}
    values |= {"frozen_layers": 2} | (AUDIO_ONLY if name == "ispas2023" else {})
    torch.manual_seed(0)
    model, data = models.build(values, VOCABULARY), batch()
    stage = model.stages()[-1]
    assert stage.needs == ((2,) if fusion == "last" else (1, 2))
    model.encoder.freeze(2)
    features = Prefix(*model.encoder.front(data.waveforms, data.lengths))
    known = Batch(None, data.lengths, data.targets, model.encoder.run_frozen_layers(features, stage.needs))
    loss = compute_loss(model, stage, known)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.fusion.parameters())


def test_stage_1_freezes_as_many_layers_as_it_is_told():
    for frozen in (0, 2):
        model = models.build(TINY_MODEL | {"frozen_layers_in_stage_1": frozen}, VOCABULARY)
        assert model.stages()[0].cut == frozen and model.stages()[1].cut == TINY_MODEL.get("frozen_layers", 4)


@pytest.mark.parametrize("name", ["baseline", "wan2025"])
def test_output_norm_standardises_each_utterance_over_its_real_frames(name):
    values = TINY_MODEL if name == "wan2025" else {"name": name, "encoder": TINY_MODEL["encoder"]}
    torch.manual_seed(0)
    model, data = models.build(values | {"output_norm": "utterance"}, VOCABULARY).eval(), batch()
    with torch.no_grad():
        model.encoder.norm.weight.mul_(7)
        model.encoder.norm.bias.add_(3)
    hidden, frames = data.encode(model.encoder)
    together = standardise_utterances(hidden, frames)
    for row, count in enumerate(frames.tolist()):
        own = hidden[row, :, :count].flatten(1)
        expected = (own - own.mean(1, keepdim=True)) / (
            own.var(1, keepdim=True, unbiased=False) + 1e-5
        ).sqrt()
        torch.testing.assert_close(together[row, :, :count].flatten(1), expected, atol=1e-5, rtol=1e-4)
        assert not together[row, :, count:].any()
    plain = models.build(values, VOCABULARY).eval()
    plain.load_state_dict(model.state_dict())
    before, after = plain(data)["emotion"].logits, model(data)["emotion"].logits
    assert (before - after).abs().max() > 0.01
    n = int(data.lengths[2])
    alone = model(Batch(data.waveforms[2:, :n], data.lengths[2:]))["emotion"].logits
    torch.testing.assert_close(alone[0], after[2], atol=1e-5, rtol=1e-5)
    model.encoder.freeze(1)
    features = Prefix(*model.encoder.front(data.waveforms, data.lengths))
    known = Batch(None, data.lengths, data.targets, model.encoder.run_frozen_layers(features, (1,)))
    compute_loss(model, model.stages()[-1], known).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients), "hidden state 0, not kept, is NaN"


def test_an_utterance_without_labels_changes_no_gradient():
    labelled, bare = UTTERANCES[0], Utterance(id="4", path=Path("4"), speaker="nobody")
    gradients = []
    for utterances in ([labelled], [labelled, bare]):
        model = build().eval()
        compute_loss(model, model.stages()[-1], batch(utterances)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_vocabulary():
    assert VOCABULARY.classes["emotion"] == ["neutral", "happy", "angry", "sad"]
    assert VOCABULARY.classes["gender"] == ["female", "male"] and VOCABULARY.classes["speaker"] == ["x", "y"]
    assert VOCABULARY.make_targets("emotion", UTTERANCES).tolist() == [[0, 0, 0, 1], [0, 1, 0, 0], [0] * 4]
    assert VOCABULARY.make_targets("gender", UTTERANCES).tolist() == [[0, 1], [0, 0], [1, 0]]
    assert VOCABULARY.characters == [" ", "a", "b"]
    assert VOCABULARY.make_targets("asr", UTTERANCES).tolist() == [[2, 3, 0, 0], [0, 0, 0, 0], [3, 2, 1, 3]]
    assert Vocabulary.from_json(VOCABULARY.to_json()) == VOCABULARY


@pytest.mark.parametrize(
    "values, message",
    [
        ({"name": "wan2026"}, "baseline, ispas2023, oliveira2023, wan2025"),
        (TINY_MODEL | {"fusoin": "last"}, "did you mean 'fusion'"),
        (TINY_MODEL | {"fusion": "ari"}, "fusion"),
        (
            TINY_MODEL | {"fusion": "ari_ful"},
            r"'ari_scalar', 'weighted_sum' or 'last'; did you mean 'ari_full'",
        ),
        (TINY_MODEL | {"tasks": {"genre": 1}}, "did you mean 'gender'"),
        (TINY_MODEL | {"encoder": {"name": "compact", "widht": 3}}, "did you mean 'width'"),
        (TINY_MODEL | {"encoder": {"name": "huge"}}, "compact"),
        (TINY_MODEL | {"encoder": {"name": "functionals", "cepstra": 65}}, "65 cepstra of 64 bands"),
    ],
)
def test_wrong_options_are_named(values, message):
    with pytest.raises(SertoneError, match=message):
        models.configure(values)


def test_the_table_of_models_is_the_folder():
    folder = Path(models.__file__).parent
    files = {p.stem for p in folder.glob("*.py")} - {"__init__", "contract", "stage"}
    assert files == set(models.MODELS)
