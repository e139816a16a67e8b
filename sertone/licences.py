"""Licences of what a model is made of: the corpus and, where they were pretrained, its encoders.

Identifiers are those of the Hugging Face hub, https://huggingface.co/docs/hub/repositories-licenses.
A ledger is a list of JSON objects that travels with the weights, one per part of the model:

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
    """What somebody allows others to do.

    Attributes:
        name: for people.
        id: on the hub; `other` where the hub has no identifier for it, `unknown` where nobody said.
        commercial: whether commercial use is allowed; None where that is not known.
        url: where the terms are; empty where that is not known.
    """

    name: str
    id: str
    commercial: bool | None
    url: str = ""


LEDGER_SHAPE = [{"what": str, "of": str, "name": str, "id": str, "commercial": (bool, None), "url": str}]
"""The shape of a ledger, see `shape`."""


class LicenceWarning(UserWarning):
    """A model is made of something that its licence excludes from commercial use."""


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
"""Hub id -> licence, as its model card says."""


def describe_licence(licence: Mapping[str, Any]) -> str:
    """A licence, or an entry of a ledger, for people."""
    return licence["name"] + (" (not for commercial use)" if licence["commercial"] is False else "")


PRETRAINED_PARTS = {"encoder": "encoder", "text": "text encoder"}
"""Parts of a model that may be pretrained, and what a ledger calls them."""
WHOLE_MODEL = "model"
"""What a ledger calls a model that others have trained."""
ENCODER_CORPUS = "corpus of the encoder"
"""What a ledger calls a corpus on which the encoder was trained before."""
TEACHER_SUFFIX = " of the teacher"
"""Behind what a ledger calls the parts of a model whose answers were learnt, however many models ago."""


def build_ledger(
    corpus: Mapping[str, Any],
    model: Mapping[str, Any],
    inherited: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """The licences of what a model is made of.

    Args:
        corpus: the part `corpus` of the protocol card.
        model: the part `model` of the recipe; of its encoders only pretrained ones, which have a `source`,
            have licences of their own.
        inherited: the ledger of what the encoder comes from, where Sertone has trained that.
    """
    entries = [{"what": "corpus", "of": corpus["title"]} | corpus["licence"]]
    for part, what in PRETRAINED_PARTS.items():
        if part == "encoder" and inherited is not None:
            entries += _of_the_encoder(inherited)
        elif source := (model.get(part) or {}).get("source"):
            name = Path(source).name if Path(source).is_dir() else source  # folders tell of people's machines
            entries.append({"what": what, "of": name} | asdict(find_encoder_licence(source)))
    return entries


def _of_the_encoder(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the ledger of a model, what its speech encoder is made of."""
    names = {"corpus": ENCODER_CORPUS} | {
        e["what"]: e["what"] for e in entries if e["what"].endswith(TEACHER_SUFFIX)
    }
    names |= {ENCODER_CORPUS: ENCODER_CORPUS, PRETRAINED_PARTS["encoder"]: PRETRAINED_PARTS["encoder"]}
    return [{**entry, "what": names[entry["what"]]} for entry in entries if entry["what"] in names]


def mark_as_teacher(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of the ledger of a model, what is said of it in the ledger of one that has learnt its answers."""
    return [
        {**entry, "what": entry["what"].removesuffix(TEACHER_SUFFIX) + TEACHER_SUFFIX} for entry in entries
    ]


def find_encoder_licence(source: str) -> Licence:
    """The licence of pretrained weights.

    Args:
        source: hub id, or a folder: its model card (README.md) says the licence.
    """
    card = Path(source) / "README.md"
    return _stated(card) if card.is_file() else ENCODER_LICENCES.get(source, UNKNOWN)


def _stated(card: Path) -> Licence:
    """What the metadata of a model card says."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        said = metadata_load(card) or {}
    except (ValueError, yaml.YAMLError):
        return UNKNOWN
    identifier = said.get("license", UNKNOWN.id)
    if not isinstance(identifier, str):  # several, for parts that the metadata do not tell apart
        return Licence(", ".join(map(str, identifier)), "other", None)
    if identifier == "other":
        name = str(said.get("license_name", "other"))
        return Licence(name, "other", _allows_commerce(name), str(said.get("license_link", "")))
    return KNOWN_LICENCES.get(identifier) or Licence(identifier, identifier, _allows_commerce(identifier))


def _allows_commerce(name: str) -> bool | None:
    """Of a licence that is not known here, by its name."""
    return False if re.search(r"\bnc\b|non-?commercial", name.lower()) else None


def describe_restriction(entries: Sequence[Mapping[str, Any]]) -> str:
    """One sentence that names what excludes commercial use; empty where nothing does."""
    named = [f"{e['what']} {e['of']} ({e['name']})" for e in entries if e["commercial"] is False]
    return f"not for commercial use: the model is made of {' and '.join(named)}" if named else ""


def warn_if_restricted(entries: Sequence[Mapping[str, Any]], stacklevel: int = 2) -> None:
    """Warns with a `LicenceWarning` where a part of the model excludes commercial use.

    Args:
        entries: the ledger.
        stacklevel: as of `warnings.warn`, counted from the caller.
    """
    if said := describe_restriction(entries):
        warnings.warn(said, LicenceWarning, stacklevel=stacklevel + 1)
