"""Annotators' votes: read from every corpus, trained on, scored against; hard targets stay as they were."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from conftest import TINY_MODEL
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from torch.nn import functional as F

from sertone import corpora
from sertone.corpora._check import check
from sertone.errors import SertoneError
from sertone.labels import FOUR_CLASSES, class_shares, normalise_counts
from sertone.nn.heads import ClassHead, HeadOutput
from sertone.nn.vocabulary import Vocabulary
from sertone.recipe import Recipe
from sertone.schema import Utterance
from sertone.scoring import metrics
from sertone.training.experiment.experiment import prepare
from sertone.training.runs.crossval import cross_validate


def votes_of(name, root):
    problems = []
    votes = {u.id: u.votes for u in corpora.load_utterances(name, root, problems.append)}
    return votes, [(p.code, p.severity) for p in problems if p.code != "no_signal"]


IEMOCAP_BLOCK = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tNeutral; Anger;\t(Sadness; or fear)
C-E4:\tExcited;Happiness; Excited; \t(
C-F1:\tDisgust;\t()
C-M1:\tFrustration;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\txxx\t[2.5000, 2.5000, 2.5000]
C-E1:\t;\t()
C-E2:\tNeutral state;\t
C-E3:\tPuzzled; Other;\t()
C-E4:\tPuzzled;\t()

[14.8872 - 18.0175]\tSes01F_impro01_F001\tneu\t[2.5000, 2.5000, 2.5000]
C-F1:\tNeutral;\t()
"""


def test_iemocap_counts_one_vote_per_external_rater(tmp_path):
    dialog = tmp_path / "Session1" / "dialog"
    for folder, text in (("EmoEvaluation", IEMOCAP_BLOCK), ("transcriptions", "")):
        (dialog / folder).mkdir(parents=True)
        (dialog / folder / "Ses01F_impro01.txt").write_text(text)
    votes, problems = votes_of("iemocap", tmp_path)
    sixth = 1 / 6
    assert votes["Ses01F_impro01_F000"] == pytest.approx(
        {"neutral": 3 * sixth, "angry": sixth, "excited": sixth, "happy": sixth}
    )
    assert votes["Ses01F_impro01_M000"] == {"neutral": 0.5, "other": 0.5}
    assert votes["Ses01F_impro01_F001"] == {}
    assert problems.count(("unknown_vote", "note")) == 2


def test_the_majority_of_iemocaps_raters_is_its_label(tmp_path):
    corpora.load_sheet("iemocap").fake(tmp_path)
    utterances = list(corpora.load_utterances("iemocap", tmp_path))
    assert check("iemocap", tmp_path).voted == len(utterances) == 200
    for u in utterances:
        top = max(u.votes.values())
        if u.labels["emotion"] == "no_agreement":
            assert top < 0.6
        else:
            assert u.votes[u.labels["emotion"]] == top >= 2 / 3 - 1e-9


def test_emodb_spreads_the_share_of_the_other_listeners(tmp_path):
    corpora.load_sheet("emodb").fake(tmp_path)
    rows = ["emotion,file,listener_agreement", "x,wav/03a01Fa.flac,0.85", "x,wav/03a01Na.wav,1.0"]
    rows += ["x,wav/03a01Wa.wav,", "x,wav/03a01Ta.wav,20 of 20", "x,wav/03a01La.wav,1.2"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    by_recording, problems = votes_of("emodb", tmp_path)
    assert problems == [("bad_number", "error")] * 2
    assert {name: votes for name, votes in by_recording.items() if votes}.keys() == {"03a01Fa", "03a01Na"}
    others = ("neutral", "angry", "sad", "bored", "disgusted", "fearful")
    assert by_recording["03a01Fa"] == pytest.approx({"happy": 0.85} | dict.fromkeys(others, 0.15 / 6))
    assert by_recording["03a01Na"] == {"neutral": 1.0}


def test_crema_d_counts_the_raters_of_the_voice_alone(tmp_path):
    corpora.load_sheet("crema_d").fake(tmp_path)
    table = tmp_path / "processedResults" / "tabulatedVotes.csv"
    head = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"'
    rows = [
        '"100001",0,1,0,3,6,0,"1001_IEO_HAP_XX",10,0.6,"N"',
        '"200001",0,0,0,10,0,0,"1001_IEO_HAP_XX",10,1,"H"',
        '"300001",9,0,0,0,0,0,"1001_IEO_HAP_XX",9,1,"A"',
        '"200002",10,0,0,0,0,0,"1001_IEO_NEU_XX",10,1,"A"',
        '"100003",1,NA,0,0,0,0,"1001_IEO_SAD_XX",1,1,"A"',
        '"100004",0,0,0,0,0,0,"1001_IEO_ANG_XX",0,0,""',
        '"100005",2,0,-1,0,0,0,"1001_IEO_FEA_XX",1,1,"A"',
    ]
    table.write_text("\n".join([head, *rows]) + "\n")
    by_recording, problems = votes_of("crema_d", tmp_path)
    assert {name: votes for name, votes in by_recording.items() if votes} == {
        "1001_IEO_HAP_XX": pytest.approx({"happy": 0.3, "neutral": 0.6, "disgusted": 0.1})
    }
    assert problems == [("bad_number", "error")] * 2


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid\n", b"a,\xff\n1,2\n"])
@pytest.mark.parametrize(
    "name, path", [("crema_d", "processedResults/tabulatedVotes.csv"), ("emodb", "metadata.csv")]
)
def test_a_damaged_table_is_reported_and_skipped(tmp_path, name, path, content):
    corpora.load_sheet(name).fake(tmp_path)
    (tmp_path / path).write_bytes(content)
    votes, problems = votes_of(name, tmp_path)
    assert len(votes) > 20 and not any(votes.values())
    assert problems in ([("missing_column", "note")], [("bad_table", "note")])


def test_manifest_takes_counts_and_shares(tmp_path, tone):
    tone("a.wav")
    rows = ["a.wav,1,3,1,1,", "a.wav,2,.5,,.5,", "a.wav,3,0,0,0,", "a.wav,4,many,1,,", "a.wav,5,-1,1,,"]
    (tmp_path / "m.csv").write_text("\n".join(["path,speaker,vote_happy,vote_joy,vote_awe,x", *rows]))
    votes, problems = votes_of("manifest", tmp_path / "m.csv")
    assert list(votes.values()) == [{"happy": 0.8, "awe": 0.2}, {"happy": 0.5, "awe": 0.5}, {}, {}, {}]
    assert problems == [("bad_number", "error")] * 2
    utterances = list(corpora.load_utterances("manifest", tmp_path / "m.csv", lambda _: None))
    assert all(u.labels == {} for u in utterances)


counts = st.dictionaries(st.sampled_from(["happy", "excited", "sad", "awe", "other"]), st.floats(0, 20))


@settings(deadline=None)
@given(counts)
def test_shares_by_class(found):
    votes = normalise_counts(found)
    by_class = class_shares(votes, FOUR_CLASSES)
    inside = sum(v for name, v in votes.items() if name in FOUR_CLASSES)
    assert set(by_class) <= {"happy", "sad"} and (not by_class) == (inside == 0)
    if by_class:
        assert sum(by_class.values()) == pytest.approx(1)
        joy = votes.get("happy", 0) + votes.get("excited", 0)
        assert by_class.get("happy", 0) == pytest.approx(joy / inside)


def spoken(emotion=None, **votes):
    labels = {"emotion": emotion} if emotion else {}
    return Utterance(id="u", path="u", speaker="s", labels=labels, votes=votes)


def test_soft_targets_fall_back_to_the_label():
    vocabulary = Vocabulary.from_utterances([spoken("sad")], FOUR_CLASSES)
    utterances = [
        spoken("sad", sad=0.5, happy=0.125, excited=0.125, frustrated=0.25),
        spoken("sad", frustrated=1.0),
        spoken("sad"),
        spoken(None, sad=1.0),
        spoken(None),
    ]
    third = pytest.approx(1 / 3)
    one = [0, 0, 0, 1]
    soft = vocabulary.make_targets("emotion", utterances, soft=True).tolist()
    assert soft == [[0, third, 0, pytest.approx(2 / 3)], one, one, one, [0] * 4]
    hard = vocabulary.make_targets("emotion", utterances).tolist()
    assert hard == [one, one, one, [0] * 4, [0] * 4]
    assert vocabulary.make_targets("gender", utterances, soft=True).tolist() == [[0, 0]] * 5


def head_of(smoothing, weighted, classes=3):
    head = ClassHead(4, 5, [str(k) for k in range(classes)], smoothing=smoothing)
    if weighted:
        head.class_weights.copy_(torch.linspace(0.5, 2.0, classes))
    return head


def output_of(logits):
    return HeadOutput(logits, torch.zeros(len(logits), 5), torch.ones(len(logits)))


rows_of_shares = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(rows_of_shares, st.sampled_from([0.0, 0.1, 0.5]), st.booleans(), st.integers(0, 99))
def test_soft_loss_against_a_loop_in_float64(rows, smoothing, weighted, seed):
    """The published form: smoothed target (1 - e) p + e / K, terms weighed by class."""
    head = head_of(smoothing, weighted)
    logits = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(seed)) * 3
    target = torch.tensor([[c / max(sum(row), 1) for c in row] for row in rows])
    over = under = 0.0
    for z, p in zip(logits.double().tolist(), target.double().tolist(), strict=True):
        if not any(p):
            continue
        for k in range(3):
            log_q = z[k] - math.log(sum(math.exp(value) for value in z))
            weight = head.class_weights[k].item()
            over -= weight * ((1 - smoothing) * p[k] + smoothing / 3) * log_q
            under += weight * p[k]
    expected = over / under if under else 0.0
    assert head.loss(output_of(logits), target).item() == pytest.approx(expected, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_hard_targets_cost_bit_for_bit_what_class_indices_do(smoothing, weighted):
    """Loss and gradient of torch's cross-entropy of indices, over the labelled utterances."""
    head = head_of(smoothing, weighted, classes=5)
    draw = torch.Generator().manual_seed(0)
    for size in (1, 7, 32):
        logits = [torch.randn(size, 5, generator=draw).mul(4).requires_grad_()]
        logits.append(logits[0].detach().clone().requires_grad_())
        index = torch.randint(-1, 5, (size,), generator=draw)
        spoken, known = index.clamp(min=0), index >= 0
        each = F.cross_entropy(
            logits[0], spoken, weight=head.class_weights, label_smoothing=smoothing, reduction="none"
        )
        expected = (each * known).sum() / (head.class_weights[spoken] * known).sum().clamp(min=1e-6)
        found = head.loss(output_of(logits[1]), F.one_hot(spoken, 5).float() * known[:, None])
        expected.backward()
        found.backward()
        assert torch.equal(found, expected) and torch.equal(logits[1].grad, logits[0].grad)


distributions = st.lists(
    st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).filter(lambda row: sum(row) > 0.1),
    min_size=1,
    max_size=5,
).map(lambda rows: np.array([[v / sum(row) for v in row] for row in rows]))


@settings(deadline=None)
@given(distributions, st.integers(0, 99))
def test_soft_scores_against_scipy(votes, seed):
    answers = np.random.default_rng(seed).dirichlet(np.ones(4), len(votes))
    found = metrics.soft_scores(votes, answers)
    pairs = list(zip(votes, answers, strict=True))
    divergence = np.mean([distance.jensenshannon(p, q, base=2) ** 2 for p, q in pairs])
    assert found["jsd"] == pytest.approx(divergence, abs=1e-9)
    assert found["cosine"] == pytest.approx(np.mean([1 - distance.cosine(p, q) for p, q in pairs]))
    assert metrics.soft_scores(votes, votes) == pytest.approx({"jsd": 0, "cosine": 1}, abs=1e-9)


def test_soft_scores_of_opposites_and_of_nothing():
    assert metrics.soft_scores([[1, 0]], [[0, 1]]) == {"jsd": 1.0, "cosine": 0.0}
    with pytest.raises(SertoneError):
        metrics.soft_scores(np.zeros((0, 4)), np.zeros((0, 4)))


@pytest.fixture(scope="module")
def voted_demo(small_demo, tmp_path_factory):
    """The small demo as a manifest in which all but the happy have votes, some for the label, some not."""
    path = tmp_path_factory.mktemp("voted") / "m.csv"
    with open(small_demo / "metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        row["path"] = str(small_demo / row["path"])
        if row["emotion"] != "happy":
            row |= {f"vote_{row['emotion']}": 2 + number % 2, "vote_excitement": 1, "vote_awe": 1}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def recipe_of(root, **train):
    values = {
        "data": {"corpus": "manifest", "root": str(root)},
        "protocol": {"split": "grouped_k_fold", "folds": 2},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 2], "batch_size": 8, "seed": 1} | train,
    }
    return Recipe.model_validate(values)


def rows_of(run):
    with open(run / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_with_soft_targets(voted_demo, tmp_path):
    runs = {
        targets: cross_validate(
            recipe_of(voted_demo, targets=targets), tmp_path / targets, jobs=1, quiet=True
        )
        for targets in ("hard", "soft")
    }
    hard, soft = (json.loads((runs[t] / "results.json").read_text()) for t in ("hard", "soft"))
    rows = rows_of(runs["soft"])
    assert [row["target"] for row in rows] == [row["target"] for row in rows_of(runs["hard"])]
    for a, b in zip(hard["folds"], soft["folds"], strict=True):
        first, second = a["history"][0], b["history"][0]  # auxiliary tasks only
        assert first["loss"] == second["loss"] and "loss_emotion" not in first
        assert a["history"][1]["loss_emotion"] != b["history"][1]["loss_emotion"]
        assert 0 <= b["history"][1]["ua"] <= 1
    classes = soft["classes"]
    voted = [row for row in rows if row["v_sad"]]
    assert len(voted) == 30 and {row["target"] for row in voted} == {"neutral", "angry", "sad"}
    table = {mark: [[float(row[mark + c]) for c in classes] for row in voted] for mark in ("v_", "p_")}
    for row, votes in zip(voted, table["v_"], strict=True):
        own = dict(zip(classes, votes, strict=True))
        assert own[row["target"]] in (pytest.approx(2 / 3, abs=1e-6), pytest.approx(3 / 4, abs=1e-6))
        assert own[row["target"]] + own["happy"] == pytest.approx(1, abs=1e-5)
    found = soft["pooled"]["emotion"]["soft"]
    assert found == pytest.approx(metrics.soft_scores(table["v_"], table["p_"]) | {"utterances": 30})
    assert sum(fold["soft"]["utterances"] for fold in soft["folds"]) == 30
    assert f"Jensen-Shannon divergence {found['jsd']:.3f} bits" in (runs["soft"] / "report.html").read_text()


def test_without_votes_there_are_neither_columns_nor_scores(demo_recipe, tmp_path):
    run = cross_validate(demo_recipe(), tmp_path / "run", jobs=1, quiet=True)
    results = json.loads((run / "results.json").read_text())
    assert not any(name.startswith("v_") for name in rows_of(run)[0])
    assert results["pooled"]["emotion"]["soft"] is None and results["folds"][0]["soft"] is None
    assert "Jensen-Shannon divergence of annotators" in (run / "protocol.json").read_text()
    assert "Against the votes" not in (run / "report.html").read_text()


def test_soft_targets_without_votes_are_refused_before_training(demo_recipe, voted_demo):
    with pytest.raises(SertoneError) as caught:
        prepare(demo_recipe(targets="soft"))
    assert caught.value.code == "no_votes" and "train.targets: hard" in str(caught.value)
    before, after = (prepare(recipe_of(voted_demo, targets=t)) for t in ("hard", "soft"))
    assert before.folds == after.folds
