"""The concordance loss against its formula in float64, across processes, and without any variance."""

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sertone.errors import SertoneError
from sertone.labels import Scale
from sertone.nn.losses import concordance_loss
from sertone.nn.rating_heads import RatingHead, Regressor
from sertone.utils.processes import ChildProcess


def formula(predicted, target):
    """1 - 2 rho s_p s_y / (s_p^2 + s_y^2 + (m_p - m_y)^2), through numpy's correlation, in float64."""
    p, y = (np.asarray(values, np.float64) for values in (predicted, target))
    rho = np.corrcoef(p, y)[0, 1]
    return 1 - 2 * rho * p.std() * y.std() / (p.var() + y.var() + (p.mean() - y.mean()) ** 2)


@settings(deadline=None)
@given(st.integers(2, 60), st.floats(0, 30), st.integers(0, 10**6))
def test_the_loss_is_the_formula(count, offset, seed):
    random = np.random.default_rng(seed)
    target = random.normal(offset, 1, count)
    predicted = target + random.normal(0.3, 0.7, count)
    loss = concordance_loss(torch.tensor(predicted, dtype=torch.float32), torch.tensor(target))
    assert loss.item() == pytest.approx(formula(predicted, target), abs=1e-4)


def test_its_gradient_is_that_of_the_formula():
    def double(p, y):
        p_mean, y_mean = p.mean(), y.mean()
        covariance = ((p - p_mean) * (y - y_mean)).mean()
        return 1 - 2 * covariance / (p.var(correction=0) + y.var(correction=0) + (p_mean - y_mean) ** 2)

    target, values = torch.rand(9, dtype=torch.float64), torch.rand(9, dtype=torch.float64)
    gradients = []
    for loss in (concordance_loss, double):
        predicted = values.clone().requires_grad_()
        loss(predicted, target).backward()
        gradients.append(predicted.grad)
    torch.testing.assert_close(gradients[0].double(), gradients[1], atol=1e-5, rtol=1e-4)


def test_a_missing_rating_adds_no_loss():
    predicted = torch.rand(6, requires_grad=True)
    target = torch.tensor([1.0, float("nan"), 3.0, 2.0, float("nan"), 5.0])
    loss = concordance_loss(predicted, target)
    loss.backward()
    rated = target.isfinite()
    assert loss.item() == pytest.approx(formula(predicted.detach()[rated], target[rated]), abs=1e-5)
    assert predicted.grad.isfinite().all() and not predicted.grad[~rated].any()


@pytest.mark.parametrize("target", [[3.0, 3.0, 3.0], [3.0], [float("nan")] * 3])
@pytest.mark.parametrize("equal", [True, False])
def test_nothing_to_measure_is_finite(target, equal):
    target = torch.tensor(target)
    predicted = torch.full_like(target, 3.0) if equal else torch.linspace(0, 1, len(target))
    predicted.requires_grad_()
    loss = concordance_loss(predicted, target)
    loss.backward()
    assert loss.item() == (1.0 if target.isfinite().any() else 0.0)
    assert predicted.grad.isfinite().all()


@pytest.mark.parametrize("divided", [True, False])
def test_a_head_keeps_the_scale_of_the_corpus(divided):
    torch.manual_seed(0)
    scale = Scale(1.0, 7.0)
    head, regressor = RatingHead(8, scale, divide_by_top=divided, dropout=0.0), Regressor(5, 8, 0.0)
    output = head.rate(regressor(torch.randn(50, 5) * 20), torch.ones(50))
    shares = torch.sigmoid(output.logits[:, 0])
    expected = 7 * shares if divided else 1 + 6 * shares
    answers = head.decode(output)
    assert answers == pytest.approx(expected.tolist())
    assert min(answers) >= (0 if divided else 1) and max(answers) <= 7
    target = torch.linspace(1, 7, 50)
    assert head.loss(output, target).item() == pytest.approx(formula(answers, target), abs=1e-4)


def test_a_scale_below_zero_is_mapped_and_never_divided():
    head = RatingHead(4, Scale(-1.0, 1.0))
    output = head.rate(torch.randn(200, 4) * 30, torch.ones(200))
    answers = head.decode(output)
    assert min(answers) < -0.5 and max(answers) > 0.5
    for scale in (Scale(-1.0, 1.0), Scale(-3.0, 0.0)):
        with pytest.raises(SertoneError, match="ratings_from: scale") as caught:
            RatingHead(4, scale, divide_by_top=True)
        assert caught.value.code == "bad_scale"


def run_process(rank, port, rows, half):
    """Return the loss of one of two processes, and its gradient after the averaging of DDP."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = DistributedDataParallel(torch.nn.Linear(3, 1))
    inputs, targets = (torch.tensor(part[rank * half :][: half if rank == 0 else None]) for part in rows)
    loss = concordance_loss(model(inputs)[:, 0], targets)
    loss.backward()
    return loss.item(), [p.grad.tolist() for p in model.parameters()]


@pytest.mark.parametrize("half", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_two_processes_have_the_loss_and_gradient_of_the_whole_batch(half):
    """Shares of different size, one of a single utterance, one rating missing."""
    random = np.random.default_rng(0)
    rows = [random.normal(size=(8, 3)).astype(np.float32), random.normal(size=8).astype(np.float32)]
    rows[1][4] = np.nan
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [ChildProcess({"PYTHONPATH": __import__("os").path.dirname(__file__)}) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(c, run_process, n, port, rows, half) for n, c in enumerate(children)]
            actual = [call.result() for call in calls]
    finally:
        for child in children:
            child.close()
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    loss = concordance_loss(model(torch.tensor(rows[0]))[:, 0], torch.tensor(rows[1]))
    loss.backward()
    for value, gradients in actual:
        assert value == pytest.approx(loss.item(), abs=1e-6)
        for gradient, parameter in zip(gradients, model.parameters(), strict=True):
            assert np.array(gradient) == pytest.approx(parameter.grad.numpy(), abs=1e-6)
