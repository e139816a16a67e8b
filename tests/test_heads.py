"""Fusions, heads and attention against naive loops; a missing label adds no loss."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sertone.labels import Scale
from sertone.nn.attention import CoAttention
from sertone.nn.distillation import TargetHead
from sertone.nn.fusions import FUSIONS
from sertone.nn.heads import ClassHead, EnsembleHead, HeadOutput, TranscriptHead
from sertone.nn.losses import class_loss
from sertone.nn.masks import masked_mean, masked_std
from sertone.nn.pooling import POOLINGS
from sertone.nn.rating_heads import RatingHead
from sertone.nn.state_norms import STATE_NORMS


def draw_normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("name", FUSIONS)
def test_fusion_against_its_formula(name, depth):
    batch, frames, width = 2, 3, 4
    hidden = draw_normal(batch, depth + 1, frames, width)
    fusion = FUSIONS[name](depth, width)
    if name.startswith("ari"):
        assert torch.equal(fusion(hidden), hidden[:, -1])  # at step 0
    for parameter in fusion.parameters():
        parameter.data = draw_normal(*parameter.shape, seed=1)
    actual = fusion(hidden)
    for b in range(batch):
        for t in range(frames):
            layers = [hidden[b, layer, t] for layer in range(1, depth + 1)]
            if name == "last":
                expected = layers[-1]
            elif name == "weighted_sum":
                shares = [math.exp(w) for w in fusion.weights.tolist()]
                expected = sum(s / sum(shares) * h for s, h in zip(shares, layers, strict=True))
            else:
                expected = layers[-1].clone()
                for weight, h in zip(fusion.weights, layers[:-1], strict=True):
                    expected += weight @ h if name == "ari_full" else weight * h
            torch.testing.assert_close(actual[b, t], expected)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_masked_statistics(lengths, seed):
    features = draw_normal(len(lengths), 6, 3, seed=seed)
    frames = torch.tensor(lengths)
    for row, n in enumerate(lengths):
        real = features[row, :n]
        torch.testing.assert_close(masked_mean(features, frames)[row], real.mean(0))
        std = (real.var(0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(masked_std(features, frames)[row], std)
    pooled = POOLINGS["statistics"](3)(features, frames)
    both = torch.cat([masked_mean(features, frames), masked_std(features, frames)], -1)
    torch.testing.assert_close(
        pooled,
        (both - both.mean(-1, keepdim=True)) / (both.var(-1, correction=0, keepdim=True) + 1e-5).sqrt(),
    )
    torch.testing.assert_close(POOLINGS["mean"](3)(features, frames), masked_mean(features, frames))


def test_standardised_pooling_standardises_over_the_utterances_and_remembers_their_moments():
    torch.manual_seed(0)
    pooling, frames = POOLINGS["standardised"](3), torch.tensor([7, 2, 5, 6])
    for step in range(200):
        features = 40 * draw_normal(4, 7, 3, seed=step) + torch.tensor([500.0, 0.0, -3.0])
        pooled = pooling.train()(features, frames)
    both = torch.cat([masked_mean(features, frames), masked_std(features, frames)], -1)
    expected = (both - both.mean(0)) / (both.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(pooled, expected, atol=1e-4, rtol=1e-4)
    alone = pooling.eval()(features[1:2], frames[1:2])
    torch.testing.assert_close(alone[0], pooling(features, frames)[1], atol=1e-4, rtol=1e-4)
    assert pooling(features, frames).abs().max() < 6, "the moments of training, not those of the batch"
    before = pooling.norm.running_mean.clone()
    single = pooling.train()(features[1:2], frames[1:2])
    torch.testing.assert_close(single, alone)
    assert torch.equal(pooling.norm.running_mean, before), "one utterance has no variance"


def test_an_utterance_without_frames_has_no_part_in_the_moments():
    torch.manual_seed(0)
    features, frames = 3 * draw_normal(4, 7, 3), torch.tensor([7, 0, 5, 6])
    present = [0, 2, 3]
    some, all_ = POOLINGS["standardised"](3).train(), POOLINGS["standardised"](3).train()
    mixed, alone = some(features, frames), all_(features[present], frames[present])
    torch.testing.assert_close(mixed[present], alone)
    torch.testing.assert_close(some.norm.running_var, all_.norm.running_var)
    before = some.norm.running_var.clone()
    assert some(features, torch.zeros(4, dtype=torch.long)).isfinite().all()
    assert torch.equal(some.norm.running_var, before)


@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 99))
def test_norms_of_hidden_states_against_their_formulas(states, more, seed):
    torch.manual_seed(seed)
    frames = torch.tensor([3, 1, 0])
    hidden = 5 * torch.randn(3, states, 3 + more, 4) + 2
    norms = {name: norm(hidden, frames) for name, norm in STATE_NORMS.items()}
    assert torch.equal(norms.pop("none"), hidden)
    for row, count in enumerate(frames.tolist()):
        for state in range(states):
            real = hidden[row, state, :count].numpy().astype(np.float64)
            for name, axes in (("frame", 1), ("utterance", None)):
                actual = norms[name][row, state]
                assert not actual[count:].any()
                if count:
                    variance = real.var(axes, keepdims=True)
                    expected = (real - real.mean(axes, keepdims=True)) / np.sqrt(variance + 1e-5)
                    np.testing.assert_allclose(actual[:count], expected, atol=1e-4)


@given(st.floats(0, 5), st.floats(0, 0.5), st.integers(0, 99))
def test_focal_loss_by_its_formula(gamma, smoothing, seed):
    torch.manual_seed(seed)
    logits, weights = 4 * torch.randn(5, 3), torch.tensor([1.0, 2.0, 0.5])
    target = torch.rand(5, 3).softmax(-1)
    target[2] = 0  # no label
    total, weight = 0.0, 0.0
    for b in (0, 1, 3, 4):
        probabilities = np.exp(logits[b].double().numpy())
        probabilities /= probabilities.sum()
        for k in range(3):
            share = (1 - smoothing) * float(target[b, k]) + smoothing / 3
            surprise = (1 - probabilities[k]) ** gamma * -math.log(probabilities[k])
            total += float(weights[k]) * share * surprise
            weight += float(weights[k] * target[b, k])
    actual = class_loss(logits, target, weights, smoothing, gamma)
    assert actual.item() == pytest.approx(total / weight, rel=1e-4)


def test_focal_loss_without_an_exponent_is_the_cross_entropy_and_certainty_has_a_gradient():
    logits, target = draw_normal(6, 3), F.one_hot(torch.arange(6) % 3, 3).float()
    plain = class_loss(logits, target, torch.ones(3), 0.1)
    assert torch.equal(class_loss(logits, target, torch.ones(3), 0.1, 0.0), plain)
    certain = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = class_loss(certain, target[:1], torch.ones(3), 0.0, 0.5)
    loss.backward()
    assert loss.item() == 0 and certain.grad.isfinite().all()


def test_co_attention_against_a_loop():
    attention = CoAttention(width=4, hidden=3)
    auxiliary, features, frames = draw_normal(2, 3, 3), draw_normal(2, 5, 4, seed=1), torch.tensor([5, 2])
    actual, weights = attention(auxiliary, features, frames)
    for b in range(2):
        for a in range(3):
            query = attention.query(auxiliary[b, a])
            n = int(frames[b])
            scores = [(query @ attention.key(features[b, t])).item() / 2.0 for t in range(n)]
            total = sum(math.exp(s) for s in scores)
            shares = [math.exp(s) / total for s in scores]
            expected = sum(s * attention.value(features[b, t]) for t, s in enumerate(shares))
            torch.testing.assert_close(actual[b, a], expected)
            assert weights[b, a, n:].eq(0).all()


def test_class_loss_is_the_cross_entropy_of_the_labelled():
    head = ClassHead(4, 5, ["a", "b", "c"], smoothing=0.1).eval()
    head.class_weights.copy_(torch.tensor([1.0, 2.0, 0.5]))
    output = head(draw_normal(4, 6, 4), torch.tensor([6, 5, 4, 1]))
    labels = torch.tensor([2, 0, 1])
    expected = F.cross_entropy(
        output.logits[[0, 2, 3]], labels, weight=head.class_weights, label_smoothing=0.1
    )
    target = torch.zeros(4, 3)
    target[[0, 2, 3], labels] = 1
    torch.testing.assert_close(head.loss(output, target), expected)
    assert head.decode(output) == [head.classes[i] for i in output.logits.argmax(1)]


def test_members_of_an_ensemble_have_separate_losses():
    torch.manual_seed(0)
    head = EnsembleHead(3, lambda: ClassHead(4, 5, ["a", "b", "c"]))
    head.smoothing = 0.1
    head.class_weights.copy_(torch.tensor([1.0, 2.0, 0.5]))
    head.eval()
    pooled, frames, target = draw_normal(6, 4), torch.full((6,), 3), F.one_hot(torch.arange(6) % 3, 3).float()
    output = head.classify(pooled, frames)
    alone = [member.classify(pooled, frames).logits for member in head.members]
    mean = np.mean([np.log(logits.softmax(-1).detach().numpy()) for logits in alone], 0)
    np.testing.assert_allclose(output.logits.detach(), mean, atol=1e-5)
    losses = [
        F.cross_entropy(logits, target.argmax(-1), weight=head.class_weights, label_smoothing=0.1)
        for logits in alone
    ]
    torch.testing.assert_close(head.loss(output, target), torch.stack(losses).mean())
    head.loss(output, target).backward()
    own = torch.autograd.grad(losses[1] / 3, list(head.members[1].parameters()))
    for parameter, gradient in zip(head.members[1].parameters(), own, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert head.decode(output) == [head.classes[i] for i in mean.argmax(-1)]
    assert not torch.equal(alone[0], alone[1])


def test_a_batch_without_labels_has_no_loss_and_no_gradient():
    for head, target in (
        (ClassHead(4, 5, ["a", "b"]), torch.zeros(2, 2)),
        (EnsembleHead(2, lambda: ClassHead(4, 5, ["a", "b"])), torch.zeros(2, 2)),
        (TranscriptHead(4, 5, ["a", "b"]), torch.zeros(2, 1, dtype=torch.long)),
    ):
        loss = head.loss(head(draw_normal(2, 6, 4), torch.tensor([6, 5])), target)
        loss.backward()
        assert loss == 0
        assert all(p.grad is None or not p.grad.any() for p in head.parameters())


def ctc_by_enumeration(log_probabilities, target):
    """Return minus the log of the summed probability of every path that decodes to `target`."""
    frames, symbols = log_probabilities.shape
    total = 0.0
    for code in range(symbols**frames):
        path = [code // symbols**t % symbols for t in range(frames)]
        merged = [s for i, s in enumerate(path) if s and (i == 0 or path[i - 1] != s)]
        if merged == target:
            total += math.exp(sum(log_probabilities[t, s].item() for t, s in enumerate(path)))
    return -math.log(total)


def test_ctc_loss_by_enumerating_all_paths():
    head = TranscriptHead(4, 5, ["a", "b"]).eval()
    output = head(draw_normal(3, 4, 4), torch.tensor([4, 3, 2]))
    target = torch.tensor([[1, 2, 1], [1, 1, 0], [2, 2, 0]])  # the last does not fit: 2 + 1 repeat > 2
    assert head.exceeds_frames(output, target).tolist() == [False, False, True]
    rows = output.logits.log_softmax(-1)
    expected = ctc_by_enumeration(rows[0], [1, 2, 1]) / 3 + ctc_by_enumeration(rows[1, :3], [1, 1]) / 2
    loss = head.loss(output, target)
    assert loss.item() == pytest.approx(expected / 2, rel=1e-5)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


def test_ctc_decoding():
    head = TranscriptHead(4, 5, ["a", "b"])
    path = [[0, 1, 1, 0, 1, 2], [2, 2, 0, 0, 1, 1]]
    logits = F.one_hot(torch.tensor(path), 3).float()
    output = HeadOutput(logits, torch.zeros(2, 5), torch.tensor([6, 3]))
    assert head.decode(output) == ["aab", "b"]


# Large batches in parts


def make_case(name):
    """Return a head, the inputs of its `forward` for six utterances, and targets that lack some labels."""
    torch.manual_seed(0)
    features, frames = draw_normal(6, 9, 4), torch.tensor([9, 5, 7, 8, 6, 9])
    labels = (
        F.one_hot(torch.tensor([0, 1, 2, 2, 1, 0]), 3).float() * torch.tensor([1, 1, 0, 1, 1, 1])[:, None]
    )
    texts = torch.tensor([[1, 2, 0], [0, 0, 0], [2, 1, 2], [1, 0, 0], [2, 2, 0], [1, 2, 1]])
    states = draw_normal(6, 9, 5, seed=1) * (torch.arange(9) < frames[:, None])[..., None]
    heads = {
        "classes": (ClassHead(4, 3, ["a", "b", "c"], dropout=0.0, smoothing=0.1), labels),
        "ensemble": (EnsembleHead(2, lambda: ClassHead(4, 3, ["a", "b", "c"], dropout=0.0)), labels),
        "transcript": (TranscriptHead(4, 3, ["a", "b"], dropout=0.0), texts),
        "layer of a teacher": (TargetHead(4, 5, cosine=1.0), states),
    }
    head, target = heads[name]
    if hasattr(head, "class_weights"):
        head.class_weights.copy_(torch.tensor([0.5, 1.0, 2.0]))
    return head, (features, frames), target


@pytest.mark.parametrize("name", ["classes", "ensemble", "transcript", "layer of a teacher"])
def test_the_weight_of_a_batch_is_the_divisor_of_its_loss(name):
    """So the weighted losses of the parts of a batch add up to the loss of the whole batch."""
    head, inputs, target = make_case(name)

    def sum_loss(rows):
        return head.loss(head(*(part[rows] for part in inputs)), target[rows]) * head.weigh(target[rows])

    whole = sum_loss(slice(None))
    torch.testing.assert_close(sum_loss(slice(0, 2)) + sum_loss(slice(2, 6)), whole)
    assert whole > 0 and head.weigh(target) != len(target)


def test_the_weight_of_ratings_is_their_number():
    """The concordance is not a mean over utterances, so its batches are weighted by size."""
    head = RatingHead(3, Scale(1.0, 5.0))
    assert head.weigh(torch.tensor([2.0, float("nan"), 4.0])) == 2
