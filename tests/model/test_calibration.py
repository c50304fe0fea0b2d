import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiwl.model.calibration import calibration_error, fit_temperature


def test_what_is_believed_as_often_as_it_is_right_has_no_error() -> None:
    probabilities = np.tile([[0.75, 0.25]], (8, 1))
    zeros = np.zeros(8, np.int64)
    assert calibration_error(probabilities, zeros, np.array([0] * 6 + [1] * 2)) == pytest.approx(0)
    assert calibration_error(probabilities, zeros, zeros) == pytest.approx(0.25)
    assert calibration_error(np.eye(2), np.array([0, 1]), np.array([0, 0])) == pytest.approx(0.5)
    # A routed answer need not be the likeliest class: what counts is the confidence in the answer.
    assert calibration_error(probabilities, zeros + 1, np.array([1] * 2 + [0] * 6)) == pytest.approx(0)
    assert calibration_error(np.zeros((0, 2)), zeros[:0], zeros[:0]) == 0


@settings(max_examples=20)
@given(st.floats(0.3, 4), st.integers(0, 9))
def test_the_temperature_that_logits_were_multiplied_by_is_found_again(factor: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4000, 3, generator=generator, dtype=torch.float64)
    targets = np.eye(3)[torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0].numpy()]
    own = fit_temperature(logits[None], targets)
    assert own == pytest.approx(1, abs=0.15)
    assert fit_temperature(factor * logits[None], targets) == pytest.approx(factor * own, rel=1e-3)
    assert fit_temperature(logits.expand(8, -1, -1), targets) == pytest.approx(own, rel=1e-3)


def test_fractions_that_are_told_rightly_stay_as_they_are() -> None:
    logits = torch.randn(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert fit_temperature(logits[None], logits.softmax(dim=1).numpy()) == pytest.approx(1, abs=1e-3)
