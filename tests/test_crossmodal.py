"""Attention between audio and text, against naive loops; padding and missing modalities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sertone.nn.attention import (
    INTERACTIONS,
    BridgeTokens,
    CrossAttention,
    ModalitySelfAttention,
    ModalityStates,
    MultiHeadAttention,
    align_lengths,
)
from sertone.nn.masks import masked_mean

WIDTH, HEADS, TOKENS = 8, 4, 3


def make_modality(counts, length=None, seed=0):
    """Return random states, zero beyond the counts."""
    draw = torch.Generator().manual_seed(seed)
    states = [torch.randn(n, WIDTH, generator=draw) for n in counts]
    batch = torch.zeros(len(counts), length or max(1, *counts), WIDTH)
    for row, own in zip(batch, states, strict=True):
        row[: len(own)] = own
    return ModalityStates(batch, torch.tensor(counts))


def attend_naively(attention, query, keys, values):
    """Compute multi-head attention of one utterance, query by query and head by head, in float64."""
    a = attention.double()
    q, k, v = (p(x.double()) for p, x in ((a.query, query), (a.key, keys), (a.value, values)))
    size = WIDTH // HEADS
    mixed = torch.zeros(len(q), WIDTH, dtype=torch.float64)
    for i in range(len(q)):
        for head in range(HEADS):
            own = slice(head * size, (head + 1) * size)
            scores = [math.exp((q[i, own] @ k[j, own]).item() / math.sqrt(size)) for j in range(len(k))]
            for j, score in enumerate(scores):
                mixed[i, own] += score / sum(scores) * v[j, own]
    actual = a.output(mixed).float()
    attention.float()
    return actual


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 99))
def test_attention_is_the_formula(counts, queries, seed):
    torch.manual_seed(seed)
    attention = MultiHeadAttention(WIDTH, HEADS)
    keys, values = make_modality(counts, seed=seed), make_modality(counts, seed=seed + 1)
    query = torch.randn(len(counts), queries, WIDTH)
    actual = attention(query, keys.states, values.states, keys.mask)
    for row, count in enumerate(counts):
        expected = attend_naively(attention, query[row], keys.states[row, :count], values.states[row, :count])
        torch.testing.assert_close(actual[row], expected, atol=1e-5, rtol=1e-5)


def test_it_is_torchs_own_multi_head_attention():
    """A second formula: `nn.MultiheadAttention` with the same weights."""
    own, theirs = MultiHeadAttention(WIDTH, HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        parts = (own.query, own.key, own.value)
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        theirs.out_proj.load_state_dict(own.output.state_dict())
    keys, values, query = make_modality([5, 2]), make_modality([5, 2], seed=1), torch.randn(2, 4, WIDTH)
    expected, _ = theirs(query, keys.states, values.states, key_padding_mask=~keys.mask)
    actual = own(query, keys.states, values.states, keys.mask)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_self_attention_uses_the_real_states_only(residual):
    torch.manual_seed(0)
    refinement = ModalitySelfAttention(WIDTH, HEADS, 0.0, residual=residual)
    own = make_modality([5, 2])
    actual = refinement(own)
    for row, count in enumerate([5, 2]):
        states = own.states[row, :count]
        expected = attend_naively(refinement.attention, states, states, states)
        if residual:
            expected = refinement.norm(states + expected)
        torch.testing.assert_close(actual.states[row, :count], expected, atol=1e-5, rtol=1e-5)
        assert not actual.states[row, count:].any()


def test_bridge_tokens_are_the_formula():
    """e_a = MH(Q_a, K = audio, V = text), the shorter one padded with zeros within its utterance."""
    torch.manual_seed(0)
    bridge = BridgeTokens(WIDTH, HEADS, 0.0, TOKENS, "pad")
    audio, text = make_modality([5, 2], length=7), make_modality([2, 4], length=5, seed=1)
    to_text, to_audio = bridge(audio, text)
    for row, (a, t) in enumerate([(5, 2), (2, 4)]):
        length = max(a, t)
        heard, read = torch.zeros(length, WIDTH), torch.zeros(length, WIDTH)
        heard[:a], read[:t] = audio.states[row, :a], text.states[row, :t]
        expected = attend_naively(bridge.to_text, bridge.queries[0], heard, read)
        torch.testing.assert_close(to_text.states[row], expected, atol=1e-5, rtol=1e-5)
        expected = attend_naively(bridge.to_audio, bridge.queries[1], read, heard)
        torch.testing.assert_close(to_audio.states[row], expected, atol=1e-5, rtol=1e-5)
    assert to_text.counts.tolist() == to_audio.counts.tolist() == [TOKENS, TOKENS]


def test_cross_attention_asks_with_the_other_modality():
    torch.manual_seed(0)
    cross = CrossAttention(WIDTH, HEADS, 0.0, TOKENS, "pad")
    audio, text = make_modality([5, 2]), make_modality([2, 4], seed=1)
    of_audio, of_text = cross(audio, text)
    for row, (a, t) in enumerate([(5, 2), (2, 4)]):
        heard, read = audio.states[row, :a], text.states[row, :t]
        expected = attend_naively(cross.audio_asks, heard, read, read)
        torch.testing.assert_close(of_audio.states[row, :a], expected, atol=1e-5, rtol=1e-5)
        expected = attend_naively(cross.text_asks, read, heard, heard)
        torch.testing.assert_close(of_text.states[row, :t], expected, atol=1e-5, rtol=1e-5)


COUNTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: sum(pair) > 0), min_size=1, max_size=4
)


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("pairing", ["pad", "stretch"])
@settings(deadline=None, max_examples=25)
@given(counts=COUNTS, more=st.integers(0, 4))
def test_no_stream_depends_on_padding_or_the_rest_of_the_batch(name, pairing, counts, more):
    """One modality may be missing, too; all states beyond the counts are zero."""
    torch.manual_seed(1)
    interaction = INTERACTIONS[name](WIDTH, HEADS, 0.0, TOKENS, pairing)
    heard, read = zip(*counts, strict=True)
    audio = make_modality(heard, length=max(1, *heard) + more)
    text = make_modality(read, length=max(1, *read) + 2 * more, seed=1)
    together = interaction(audio, text)
    for row, (a, t) in enumerate(counts):
        alone = interaction(
            ModalityStates(audio.states[row : row + 1, : max(1, a)], audio.counts[row : row + 1]),
            ModalityStates(text.states[row : row + 1, : max(1, t)], text.counts[row : row + 1]),
        )
        assert any(stream.counts[0] > 0 for stream in alone), "something is left"
        for actual, expected in zip(together, alone, strict=True):
            assert actual.counts[row] == expected.counts[0]
            means = [masked_mean(stream.states, stream.counts) for stream in (actual, expected)]
            torch.testing.assert_close(means[0][row], means[1][0], atol=1e-5, rtol=1e-4)


@given(st.integers(1, 9), st.integers(0, 9))
def test_stretching_keeps_the_order_and_drops_nothing(own, more):
    sequence = ModalityStates(torch.arange(1.0, own + 1)[None, :, None], torch.tensor([own]))
    length = own + more
    actual = align_lengths(sequence, torch.tensor([length]), length + 2, "stretch")[0, :, 0].tolist()
    assert actual[:length] == sorted(actual[:length]) and set(actual[:length]) == set(range(1, own + 1))
    assert actual[length:] == [0.0, 0.0]
    repeats = [actual.count(state) for state in range(1, own + 1)]
    assert max(repeats) - min(repeats) <= 1, "evenly"
