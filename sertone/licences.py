"""The licences of a model's parts: its training corpus and its pretrained encoders.

Identifiers are those of the Hugging Face hub, https://huggingface.co/docs/hub/repositories-licenses.
A ledger is a list of JSON objects that is stored with the weights, one per part of the model:

    what    corpus, encoder, text encoder, corpus of the encoder, or one of these of the teacher; model
    of      its name
    name, id, commercial, url    as `Licence`
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence and whether it allows commercial use.

    Attributes:
        name: readable name.
        id: identifier on the hub; `other` if the hub has none, `unknown` if the owner states no licence.
        commercial: whether commercial use is allowed; None if unknown.
        url: address of the terms; empty if unknown.
    """

    name: str
    id: str
    commercial: bool | None
    url: str = ""


LEDGER_SHAPE = [{"what": str, "of": str, "name": str, "id": str, "commercial": (bool, None), "url": str}]
"""Required shape of a ledger, see `utils.json_shape`."""


class LicenceWarning(UserWarning):
    """A warning that the licence of one of a model's parts excludes commercial use."""


def _creative_commons(kind: str, version: str) -> Licence:
    url = f"https://creativecommons.org/licenses/{kind}/{version}/"
    return Licence(f"CC {kind.upper()} {version}", f"cc-{kind}-{version}", "nc" not in kind, url)


UNKNOWN = Licence("unknown", "unknown", None)
CC0 = Licence("CC0 1.0", "cc0-1.0", True, "https://creativecommons.org/publicdomain/zero/1.0/")
APACHE = Licence("Apache-2.0", "apache-2.0", True, "https://www.apache.org/licenses/LICENSE-2.0")
MIT = Licence("MIT", "mit", True, "https://opensource.org/license/mit")
NC_4 = _creative_commons("by-nc", "4.0")
NC_SA_4 = _creative_commons("by-nc-sa", "4.0")
KNOWN_LICENCES = {
    licence.id: licence
    for licence in (
        UNKNOWN,
        Licence("other terms, stated by the owner", "other", None),
        CC0,
        Licence("PDDL 1.0", "pddl", True, "https://opendatacommons.org/licenses/pddl/1-0/"),
        *(_creative_commons(kind, "4.0") for kind in ("by", "by-sa", "by-nd", "by-nc-nd")),
        *(_creative_commons(kind, "3.0") for kind in ("by", "by-sa", "by-nc", "by-nc-sa", "by-nc-nd")),
        NC_4,
        NC_SA_4,
        Licence("ODC-BY 1.0", "odc-by", True, "https://opendatacommons.org/licenses/by/1-0/"),
        Licence("ODbL 1.0", "odbl", True, "https://opendatacommons.org/licenses/odbl/1-0/"),
        Licence("CDLA Permissive 2.0", "cdla-permissive-2.0", True, "https://cdla.dev/permissive-2-0/"),
        Licence("CDLA Sharing 1.0", "cdla-sharing-1.0", True, "https://cdla.dev/sharing-1-0/"),
        APACHE,
        MIT,
    )
}

WAVLM = Licence(
    "CC BY-SA 3.0, as linked from its model card; the authors' repository is under MIT",
    "cc-by-sa-3.0",
    True,
    "https://github.com/microsoft/UniSpeech/blob/main/LICENSE",
)
WHISPER = Licence(
    "MIT, from the authors' repository; its model card states Apache 2.0",
    "mit",
    True,
    "https://github.com/openai/whisper/blob/main/LICENSE",
)
WHISPER_SIZES = (
    *(f"{size}{ending}" for size in ("tiny", "base", "small", "medium") for ending in ("", ".en")),
    *("large", "large-v2", "large-v3", "large-v3-turbo"),
)
EMOTION2VEC = Licence("stated as `model-license`, whose terms are not published", "other", None)
ENCODER_LICENCES = {
    "facebook/wav2vec2-base": APACHE,
    "facebook/wav2vec2-large": APACHE,
    "facebook/wav2vec2-large-lv60": APACHE,
    "facebook/hubert-base-ls960": APACHE,
    "facebook/hubert-large-ll60k": APACHE,
    "facebook/mms-300m": NC_4,
    "facebook/mms-1b": NC_4,
    "microsoft/wavlm-base": WAVLM,
    "microsoft/wavlm-base-plus": WAVLM,
    "microsoft/wavlm-large": WAVLM,
    "ntu-spml/distilhubert": APACHE,
    "facebook/data2vec-audio-base": APACHE,
    "facebook/data2vec-audio-large": APACHE,
    "facebook/w2v-bert-2.0": MIT,
    "facebook/wav2vec2-xls-r-300m": APACHE,
    "facebook/wav2vec2-xls-r-1b": APACHE,
    **{f"openai/whisper-{size}": WHISPER for size in WHISPER_SIZES},
    "emotion2vec/emotion2vec_base": EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_seed": EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_base": EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_large": EMOTION2VEC,
    "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim": NC_SA_4,
    "microsoft/deberta-v3-small": MIT,
    "microsoft/deberta-v3-base": MIT,
    "microsoft/deberta-v3-large": MIT,
    "FacebookAI/roberta-base": MIT,
    "FacebookAI/roberta-large": MIT,
    "distilbert/distilbert-base-uncased": APACHE,
    "google-bert/bert-base-uncased": APACHE,
    "roberta-base": MIT,  # the hub still answers to these names from before it had owners
    "roberta-large": MIT,
    "distilbert-base-uncased": APACHE,
    "bert-base-uncased": APACHE,
}
"""Hub id -> licence stated by the model card."""


def describe_licence(licence: Mapping[str, Any]) -> str:
    """Return the name of a licence or ledger entry, with a note if it excludes commercial use."""
    return licence["name"] + (" (not for commercial use)" if licence["commercial"] is False else "")


PRETRAINED_PARTS = {"encoder": "encoder", "text": "text encoder"}
"""Part of a model that may be pretrained -> its name in a ledger."""
WHOLE_MODEL = "model"
"""Name in a ledger of a model that others have trained."""
ENCODER_CORPUS = "corpus of the encoder"
"""Name in a ledger of a corpus on which the encoder was trained before."""
TEACHER_SUFFIX = " of the teacher"
"""Suffix in a ledger for the parts of a teacher, or of a teacher's teacher."""


def build_ledger(
    corpus: Mapping[str, Any],
    model: Mapping[str, Any],
    inherited: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Return the ledger of a model: the licences of its corpus and encoders.

    Args:
        corpus: the part `corpus` of the protocol card.
        model: the part `model` of the recipe. Only pretrained encoders, which have a `source`, add a licence.
        inherited: the ledger of the model from which the encoder was taken, if Sertone trained it.
    """
    entries = [{"what": "corpus", "of": corpus["title"]} | corpus["licence"]]
    for part, what in PRETRAINED_PARTS.items():
        if part == "encoder" and inherited is not None:
            entries += _select_encoder_entries(inherited)
        elif source := (model.get(part) or {}).get("source"):
            # A whole path would publish the folder names of somebody's machine.
            name = Path(source).name if Path(source).is_dir() else source
            entries.append({"what": what, "of": name} | asdict(find_encoder_licence(source)))
    return entries


def _select_encoder_entries(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of a model's ledger that concern its speech encoder."""
    names = {"corpus": ENCODER_CORPUS} | {
        e["what"]: e["what"] for e in entries if e["what"].endswith(TEACHER_SUFFIX)
    }
    names |= {ENCODER_CORPUS: ENCODER_CORPUS, PRETRAINED_PARTS["encoder"]: PRETRAINED_PARTS["encoder"]}
    return [{**entry, "what": names[entry["what"]]} for entry in entries if entry["what"] in names]


def mark_as_teacher(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the ledger of a teacher, as it appears in the ledger of its student."""
    return [
        {**entry, "what": entry["what"].removesuffix(TEACHER_SUFFIX) + TEACHER_SUFFIX} for entry in entries
    ]


def find_encoder_licence(source: str) -> Licence:
    """Return the licence of pretrained weights.

    Args:
        source: hub id, or a folder whose model card (README.md) states the licence.
    """
    card = Path(source) / "README.md"
    return _read_card_licence(card) if card.is_file() else ENCODER_LICENCES.get(source, UNKNOWN)


def _read_card_licence(card: Path) -> Licence:
    """Return the licence in the metadata of a model card."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        metadata = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        return UNKNOWN
    identifier = metadata.get("license", UNKNOWN.id)
    if not isinstance(identifier, str):  # a list, which does not say which licence covers which part
        return Licence(", ".join(map(str, identifier)), "other", None)
    if identifier == "other":
        name = str(metadata.get("license_name", "other"))
        return Licence(name, "other", _is_commercial(name), str(metadata.get("license_link", "")))
    return KNOWN_LICENCES.get(identifier) or Licence(identifier, identifier, _is_commercial(identifier))


def _is_commercial(name: str) -> bool | None:
    """Return whether an unlisted licence allows commercial use, as far as its name tells."""
    # A name can only prove the exclusion: without "nc" the terms may still forbid commercial use.
    return False if re.search(r"\bnc\b|non-?commercial", name.lower()) else None


def describe_restriction(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence that names the parts that exclude commercial use; empty if there are none."""
    parts = [f"{e['what']} {e['of']} ({e['name']})" for e in entries if e["commercial"] is False]
    return f"not for commercial use: the model is built from {' and '.join(parts)}" if parts else ""


def warn_if_restricted(entries: Sequence[Mapping[str, Any]], stacklevel: int = 2) -> None:
    """Issue a `LicenceWarning` if a part of the model excludes commercial use.

    Args:
        entries: the ledger.
        stacklevel: as for `warnings.warn`, counted from the caller.
    """
    if restriction := describe_restriction(entries):
        warnings.warn(restriction, LicenceWarning, stacklevel=stacklevel + 1)
