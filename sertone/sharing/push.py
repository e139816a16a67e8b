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
    """Upload a checkpoint or a bundle; the repository is created if it does not exist.

    The token is that of `hf auth login`.

    Args:
        model: a bundle, a checkpoint folder, a fold, or what `sertone train` wrote.
        repository: OWNER/NAME.
        private: create a repository that only people with the owner's permission can see.
        scores: run of a cross-validation of the same recipe, or a choice of it; the card states its scores.
            Without it the card in the folder is uploaded as it is. Only the card of a fold of the best
            settings of a choice is uploaded without its scores. A bundle's card already has scores.
        message: message of the commit.

    Returns:
        the address of the model.

    Raises:
        SertoneError: `not_a_checkpoint`, `bad_bundle`, `many_models`, `not_a_run`, `other_recipe`,
            `no_token`, `public_repository`, `hub_refused`, `hub_unreachable`, `bad_repository`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    collect_files = _collect_bundle if bundle.is_bundle(Path(model)) else _collect_checkpoint
    about, card, files = collect_files(model, scores)
    if not get_token():
        raise SertoneError(
            "no_token",
            "no token of the Hugging Face hub",
            "a token with write permission",
            "set HF_TOKEN, or run `hf auth login`",
        )
    _warn_before_publishing(about)
    # The card of a folder has a placeholder, since it was written before the repository was known.
    files["README.md"] = card.replace(model_card.REPOSITORY, repository).encode()
    api = HfApi(library_name="sertone")
    with _convert_hub_errors(repository):
        # None, not False: it leaves the choice to the default of an organisation.
        address = api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            # `create_repo` leaves an existing repository as it is.
            problem = f"{repository} already exists and is public"
            raise SertoneError("public_repository", problem, "a private repository", "choose another name")
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repository, operations, commit_message=message)
    return str(address)


def _collect_checkpoint(model: str | Path, scores: str | Path | None) -> tuple[dict, str, dict[str, Any]]:
    """Return the description of a checkpoint, its card, and its other files by name."""
    folder = folders.find_checkpoint(model)
    about = folders.read_about(folder)
    card = (folder / CARD).read_text(encoding="utf-8")
    if scores is not None:
        card = model_card.render(about, Scores.from_run(Path(scores), about))
    elif describe_choice(folder.parents[1]):
        # The test speakers of the fold took part in the choice of the settings: its score is too high.
        card = model_card.render(about)
    paths = [folder / name for name in (MARKER, WEIGHTS, TOKENIZER)]
    return about, card, {path.name: path for path in paths if path.is_file()}


def _collect_bundle(model: str | Path, scores: str | Path | None) -> tuple[dict, str, dict[str, Any]]:
    """Return the description of a bundle, its card, and its other files by name."""
    if scores is not None:
        problem = "--scores with a bundle, whose card already has the scores of the exported model"
        raise SertoneError("other_recipe", problem, "a checkpoint", "export a run or a fold with scores")
    folder = Path(model)
    about = bundle.read_metadata(folder)
    card = (folder / bundle.CARD).read_text(encoding="utf-8")
    return about, card, {name: folder / name for name in (bundle.MARKER, *about["files"])}


def _warn_before_publishing(about: dict) -> None:
    """Warn about licences and names of speakers that you may not want to publish."""
    licences.warn_if_restricted(about["licences"], stacklevel=3)
    corpus = about["card"]["corpus"]
    if corpus["name"] == "manifest" and corpus["speakers"]:
        text = f"the JSON and the model card name the {corpus['speakers']} speakers as your table does"
        warnings.warn(text, stacklevel=3)


@contextlib.contextmanager
def _convert_hub_errors(repository: str) -> Iterator[None]:
    """Convert errors of the hub and of the connection to it into errors of Sertone."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        raise SertoneError(
            "hub_refused",
            f"{repository}: {error.server_message or first_line(error)}",
            "a token with write permission for this repository",
            "`hf auth whoami` shows whose token it is",
        ) from error
    except HFValidationError as error:
        raise SertoneError("bad_repository", str(error), "OWNER/NAME") from error
    except ValueError as error:  # the metadata of the card were edited by hand
        problem = f"{repository}: {error}"
        raise SertoneError("hub_refused", problem, "a valid model card", f"correct {CARD}") from error
    except (httpx2.HTTPError, OSError, RuntimeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise SertoneError("hub_unreachable", problem, "a connection to the Hugging Face hub") from error
