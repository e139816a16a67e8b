"""Publishing a checkpoint or a bundle on the Hugging Face hub: weights, JSON and the card, in one commit."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sertone import licences
from sertone.errors import SertoneError, first_line
from sertone.runtime import bundle
from sertone.sharing import model_card
from sertone.sharing import model_folder as folders
from sertone.sharing.card_scores import Scores, describe_choice
from sertone.sharing.model_folder import CARD, MARKER, TOKENIZER, WEIGHTS


def push(
    model: str | Path,
    repository: str,
    *,
    private: bool = False,
    scores: str | Path | None = None,
    message: str = "A model of Sertone",
) -> str:
    """Uploads a checkpoint or a bundle; the repository is made if need be.

    The token is that of `hf auth login`.

    Args:
        model: a bundle, a checkpoint folder, a fold, or what `sertone train` wrote.
        repository: OWNER/NAME.
        private: only for those whom the owner lets in.
        scores: run of a cross-validation of the same recipe, or a choice of it, whose scores the card is
            to state. Without it the card goes up as it is in the folder, that of a fold of the best settings
            of a choice without its scores. A bundle's card has them already.
        message: of the commit.

    Returns:
        the address of the model.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_bundle`, `many_models`, `not_a_run`, `other_recipe`,
            `no_token`, `public_repository`, `hub_refused`, `hub_unreachable`, `bad_repository`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    about, card, files = (_bundle if bundle.is_bundle(Path(model)) else _checkpoint)(model, scores)
    if not get_token():
        raise SertoneError(
            "no_token",
            "no token of the Hugging Face hub",
            "one that may write",
            "set HF_TOKEN, or `hf auth login`",
        )
    _warn(about)
    files["README.md"] = card.replace(model_card.REPOSITORY, repository).encode()
    api = HfApi(library_name="sertone")
    with _hub_errors(repository):
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            found = f"{repository} is there already, open to all"
            raise SertoneError("public_repository", found, "a private one", "choose another name")
        added = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repository, added, commit_message=message)
    return str(address)


def _checkpoint(model: str | Path, scores: str | Path | None) -> tuple[dict, str, dict[str, Any]]:
    """What a checkpoint says of itself, its card, and its other files."""
    folder = folders.find_checkpoint(model)
    about, card = folders.read_about(folder), (folder / CARD).read_text(encoding="utf-8")
    if scores is not None:
        card = model_card.render(about, Scores.from_run(Path(scores), about))
    elif describe_choice(folder.parents[1]):  # its settings were chosen by the speakers of its fold too
        card = model_card.render(about)
    found = [folder / name for name in (MARKER, WEIGHTS, TOKENIZER)]
    return about, card, {path.name: path for path in found if path.is_file()}


def _bundle(model: str | Path, scores: str | Path | None) -> tuple[dict, str, dict[str, Any]]:
    """The same of a bundle."""
    if scores is not None:
        found = "--scores, and a bundle, whose card has the scores of what was exported"
        raise SertoneError("other_recipe", found, "a checkpoint", "export a run or a fold with scores")
    folder, about = Path(model), bundle.read_metadata(Path(model))
    card = (folder / bundle.CARD).read_text(encoding="utf-8")
    return about, card, {name: folder / name for name in (bundle.MARKER, *about["files"])}


def _warn(about: dict) -> None:
    """Says what one may not want to publish."""
    licences.warn_if_restricted(about["licences"], stacklevel=3)
    corpus = about["card"]["corpus"]
    if corpus["name"] == "manifest" and corpus["speakers"]:
        said = f"the JSON and the model card name the {corpus['speakers']} speakers as your table does"
        warnings.warn(said, stacklevel=3)


@contextlib.contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Errors of the hub and of the way to it, in our form."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        raise SertoneError(
            "hub_refused",
            f"{repository}: {error.server_message or first_line(error)}",
            "a token that may write there",
            "`hf auth whoami` says whose it is",
        ) from error
    except HFValidationError as error:
        raise SertoneError("bad_repository", str(error), "OWNER/NAME") from error
    except ValueError as error:  # of metadata that were edited by hand
        found = f"{repository}: {error}"
        raise SertoneError("hub_refused", found, "a sound model card", f"mend {CARD}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        found = f"{type(error).__name__}: {error}"
        raise SertoneError("hub_unreachable", found, "a way to the Hugging Face hub") from error
