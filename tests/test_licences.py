"""Licences of corpora, of encoders and of models built from both, and the messages about them."""

import shutil
import warnings
from dataclasses import asdict

import pytest
from conftest import TINY_MODEL
from hub import LICENCES
from hypothesis import given
from hypothesis import strategies as st
from training_runs import train_first_fold

from sertone import cli, corpora, licences
from sertone import recipe as recipes
from sertone.errors import SertoneError
from sertone.licences import KNOWN_LICENCES, Licence, LicenceWarning
from sertone.recipe.settings import parse
from sertone.sharing.model_card import choose_licence


@pytest.mark.parametrize("name", corpora.list_names())
def test_every_corpus_states_licence_and_language(name, capsys):
    sheet = corpora.load_sheet(name)
    assert isinstance(sheet.LICENCE, Licence) and sheet.LICENCE.id in LICENCES
    own = name in ("manifest", "audiofolder")
    assert own or sheet.LICENCE.url
    assert own or name == "meld" or sheet.LICENCE.commercial is not None  # of these nobody knows
    assert len(sheet.LANGUAGE) == (0 if own else 2)
    assert cli.app(["corpora", "list"]) == 0
    assert f"licence: {sheet.LICENCE.name}" in capsys.readouterr().out


def test_known_licences_are_those_of_the_hub():
    assert KNOWN_LICENCES.keys() <= LICENCES and all(
        licence.id == key for key, licence in KNOWN_LICENCES.items()
    )
    for licence in (*KNOWN_LICENCES.values(), *licences.ENCODER_LICENCES.values()):
        expected = None if licence.id in ("unknown", "other") else "-nc" not in licence.id
        assert licence.commercial is expected and bool(licence.url) is (expected is not None)


def test_the_recipe_states_the_licence_of_a_manifest(tmp_path):
    values = {
        "data": {"corpus": "manifest", "root": "x", "licence": "cc-by-4"},
        "model": TINY_MODEL,
        "train": {"epochs": [1, 1], "batch_size": 8},
    }
    with pytest.raises(SertoneError, match=r"cc-by-4\.0") as caught:
        parse(recipes.Recipe, values, "recipe")
    assert caught.value.code == "bad_recipe" and "data.licence" in str(caught.value)
    values["data"]["licence"] = "cc-by-4.0"
    assert parse(recipes.Recipe, values, "recipe").data.licence == "cc-by-4.0"


@pytest.mark.parametrize(
    "metadata, expected",
    [
        ("license: cc-by-nc-4.0", ("cc-by-nc-4.0", False)),
        ("license: apache-2.0", ("apache-2.0", True)),
        ("license: cc-by-nc-2.0", ("cc-by-nc-2.0", False)),
        ("license: llama2", ("llama2", None)),
        ("license: other\nlicense_name: fair-noncommercial-research", ("other", False)),
        ("license: other\nlicense_name: house-terms\nlicense_link: http://x.y", ("other", None)),
        ("license: [mit, apache-2.0]", ("other", None)),
        ("language: en", ("unknown", None)),
        ("license: [", ("unknown", None)),
        ("- a list", ("unknown", None)),
    ],
)
def test_the_folder_of_an_encoder_states_its_licence(tmp_path, metadata, expected):
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n# A model\n")
    found = licences.find_encoder_licence(str(tmp_path))
    assert (found.id, found.commercial) == expected
    if "link" in metadata:
        assert (found.name, found.url) == ("house-terms", "http://x.y")


def test_an_encoder_without_a_model_card_has_a_known_licence_or_an_unknown_one(tmp_path):
    assert licences.find_encoder_licence("facebook/hubert-base-ls960").id == "apache-2.0"
    assert licences.find_encoder_licence("microsoft/wavlm-base").id == "cc-by-sa-3.0"
    assert (
        licences.find_encoder_licence(str(tmp_path))
        == licences.find_encoder_licence("who/knows")
        == licences.UNKNOWN
    )
    (tmp_path / "README.md").write_text("no metadata")
    assert licences.find_encoder_licence(str(tmp_path)) == licences.UNKNOWN


def ledger(corpus="demo", text=None, **encoder):
    sheet = corpora.load_sheet(corpus)
    return licences.build_ledger(
        {"title": sheet.TITLE, "licence": asdict(sheet.LICENCE)}, {"encoder": encoder, "text": text}
    )


def test_the_ledger_names_the_parts_and_no_path(tmp_path):
    assert [e["of"] for e in ledger(name="compact")] == ["Sertone's demo (synthetic speech)"]
    source = tmp_path / "secret" / "wavlm"
    source.mkdir(parents=True)
    found = ledger("emodb", name="pretrained", source=str(source))
    assert [(e["what"], e["of"], e["id"]) for e in found] == [
        ("corpus", "EmoDB", "cc0-1.0"),
        ("encoder", "wavlm", "unknown"),
    ]
    assert found[0].keys() == {"what", "of", "name", "id", "commercial", "url"}


def test_the_ledger_names_a_text_encoder_where_the_model_has_one(tmp_path):
    text = {"name": "pretrained", "source": "microsoft/deberta-v3-large"}
    found = ledger("emodb", text=text, source="facebook/hubert-large-ll60k")
    assert [(e["what"], e["of"], e["id"]) for e in found[1:]] == [
        ("encoder", "facebook/hubert-large-ll60k", "apache-2.0"),
        ("text encoder", "microsoft/deberta-v3-large", "mit"),
    ]
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    own = ledger("emodb", text={"source": str(tmp_path)}, name="compact")
    assert [(e["what"], e["of"]) for e in own[1:]] == [("text encoder", tmp_path.name)]
    assert "text encoder" in licences.describe_restriction(own)
    sheet = {"title": "x", "licence": asdict(licences.CC0)}
    assert len(licences.build_ledger(sheet, {"encoder": {}})) == len(licences.build_ledger(sheet, {})) == 1


@pytest.mark.parametrize(
    "old", ["roberta-base", "roberta-large", "bert-base-uncased", "distilbert-base-uncased"]
)
def test_old_names_of_text_encoders_have_the_same_licence(old):
    (new,) = [name for name in licences.ENCODER_LICENCES if name.endswith(f"/{old}")]
    assert licences.find_encoder_licence(old) == licences.find_encoder_licence(new) != licences.UNKNOWN


def test_training_says_that_a_part_is_not_for_commercial_use(demo_recipe, tmp_path, tiny_encoder):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder("wavlm"), folder)
    recipe = demo_recipe(
        {"name": "baseline", "encoder": {"name": "pretrained", "source": str(folder)}, "hidden": 8},
        epochs=[0],
    )
    lines = []
    train_first_fold(recipe, tmp_path / "free", lines)
    assert not [line for line in lines if "commercial" in line]
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    train_first_fold(recipe, tmp_path / "restricted", lines)
    assert [line for line in lines if "commercial" in line] == [
        "not for commercial use: the model is built from encoder encoder (CC BY-NC 4.0)"
    ]


def test_a_ban_on_commercial_use_is_stated_once():
    free = ledger("emodb", source="facebook/wav2vec2-base")
    assert licences.describe_restriction(free) == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        licences.warn_if_restricted(free)
    with pytest.warns(LicenceWarning) as caught:
        licences.warn_if_restricted(ledger("ravdess", source="facebook/mms-300m"))
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "RAVDESS (CC BY-NC-SA 4.0)" in message and "facebook/mms-300m (CC BY-NC 4.0)" in message
    assert "mms" not in licences.describe_restriction(ledger("ravdess", source="ntu-spml/distilhubert"))


def entries(*found):
    return [{"what": "corpus", "of": "x"} | asdict(licence) for licence in found]


@pytest.mark.parametrize(
    "ids, expected",
    [
        (["cc0-1.0"], "cc0-1.0"),
        (["cc0-1.0", "apache-2.0"], "apache-2.0"),
        (["cc0-1.0", "cc-by-sa-3.0"], "cc-by-sa-3.0"),
        (["cc-by-nc-sa-4.0", "apache-2.0"], "cc-by-nc-sa-4.0"),
        (["cc-by-nc-4.0", "cc-by-nc-sa-4.0"], "cc-by-nc-sa-4.0"),
        (["apache-2.0", "unknown"], "unknown"),
        (["cc-by-nc-4.0", "unknown"], "cc-by-nc-4.0"),
    ],
)
def test_a_model_has_the_most_restrictive_licence_of_its_parts(ids, expected):
    found = entries(*(KNOWN_LICENCES[name] for name in ids))
    assert choose_licence(found) == choose_licence(found[::-1]) == {"license": expected}


def test_different_or_unidentified_licences_get_a_name():
    both = choose_licence(entries(KNOWN_LICENCES["odbl"], licences.WAVLM))
    assert both == {"license": "other", "license_name": "odbl-and-cc-by-sa-3.0"}
    sheet = corpora.load_sheet("iemocap").LICENCE
    found = choose_licence(entries(sheet, licences.WAVLM))
    assert found == {
        "license": "other", "license_name": "iemocap-release-form", "license_link": sheet.url,
    }  # fmt: skip


@given(st.lists(st.sampled_from(list(KNOWN_LICENCES.values())), min_size=1, max_size=4))
def test_the_licence_of_a_model_never_allows_commercial_use_that_a_part_forbids(found):
    metadata = choose_licence(entries(*found))
    parts = (
        [metadata["license"]] if "license_name" not in metadata else metadata["license_name"].split("-and-")
    )
    assert metadata["license"] in LICENCES
    if any(licence.commercial is False for licence in found):
        assert all("-nc" in part for part in parts)
    assert choose_licence(entries(*found, found[0])) == metadata
    if any(licence.id not in ("cc0-1.0", "pddl") for licence in found):
        assert choose_licence(entries(*found, licences.CC0)) == metadata
