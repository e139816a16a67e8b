"""Harmed checkpoints, bundles and recipes: an answer or a coded error each; no crash, no hang, no traceback."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import fuzz
import pytest
from apart import HERE
from conftest import TINY_MODEL
from exported import COMPACT, TEXT, write_checkpoint
from toys import write_toy

from sertone import recipe as recipes
from sertone.utils.processes import ChildDiedError, ChildProcess

HANG_S = 60
"""No artifact takes that long."""
BOTH = {
    "name": "ispas2023",
    "encoder": COMPACT,
    "text": TEXT,
    "attention_heads": 2,
    "hidden": 8,
    "bridge_tokens": 3,
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, small_demo, experiment):
    """Kind -> artifacts to harm."""
    root = tmp_path_factory.mktemp("artifacts")
    tiny = {"name": "baseline", "encoder": {"name": "tiny"}, "hidden": 8, "members": 2}
    architectures = {
        "heard": {"name": "baseline", "encoder": COMPACT, "hidden": 8},
        "both": BOTH,
        "tiny": tiny,
    }
    checkpoints = [
        write_checkpoint(root / name, experiment, **values) for name, values in architectures.items()
    ]
    for kind, model in {"wan": TINY_MODEL, "mixed": BOTH}.items():
        epochs = [1] * (2 if kind == "wan" else 1)
        values = {
            "data": {"corpus": "demo", "root": str(small_demo), "classes": {"angry": "angry", "sad": "sad"}},
            "protocol": {"split": "grouped_k_fold", "folds": 2},
            "model": model,
            "train": {"epochs": epochs, "batch_size": 8, "speeds": [1.0, 1.2]},
        }
        (root / kind).mkdir()
        (root / kind / "recipe.yaml").write_text(recipes.dump(recipes.Recipe.model_validate(values)))
    bundles = [write_toy(root / "toy")]
    return {"checkpoint": checkpoints, "bundle": bundles, "recipe": [root / "wan", root / "mixed"]}


def outcomes(cases):
    """What came of each case, in a child that is replaced when it hangs or dies."""
    child, found = ChildProcess(HERE | {"OMP_NUM_THREADS": "1"}), []
    with ThreadPoolExecutor(1) as pool:
        for case in cases:
            future = pool.submit(child, fuzz.outcome_apart, *case)
            try:
                found.append(future.result(HANG_S))
            except ChildDiedError as error:
                found.append(f"crash {error}")
            except TimeoutError:
                found.append("hang")
                child.close()
                child = ChildProcess(HERE | {"OMP_NUM_THREADS": "1"})
    child.close()
    return found


def require_no_fault(cases, found):
    counts = Counter(each.split()[0] for each in found)
    print(json.dumps(counts.most_common()))
    faults = [
        f"{case}: {each}" for case, each in zip(cases, found, strict=True) if " " in each or each == "hang"
    ]
    assert not faults, f"{len(faults)} of {len(cases)}:\n" + "\n".join(faults)
    return counts


def cases_of(artifacts, kind, seeds):
    made = artifacts[kind]
    return [(kind, made[seed % len(made)], seed) for seed in seeds]


def test_a_few_harmed_artifacts(artifacts):
    """In this process, which a hang would keep: too few to be worth another."""
    cases = [case for kind in artifacts for case in cases_of(artifacts, kind, range(16))]
    counts = require_no_fault(cases, [fuzz.outcome(*case) for case in cases])
    assert len(counts) > 5, "they were not harmed in many ways"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("checkpoint", 450), ("bundle", 300), ("recipe", 250)])
def test_a_thousand_harmed_artifacts(artifacts, kind, count):
    if kind == "bundle":
        from sertone.export.bundles import export

        both = next(folder for folder in artifacts["checkpoint"] if folder.name == "both")
        export(both, both.with_name("reads"))
        artifacts[kind].append(both.with_name("reads"))
    cases = cases_of(artifacts, kind, range(1000, 1000 + count))
    counts = require_no_fault(cases, outcomes(cases))
    assert counts["answered"] < count / 2, "they were not harmed"
