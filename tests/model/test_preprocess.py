"""What a model is shown of a packed picture."""

import numpy as np
import torch

from hiwl.model.preprocess import Preprocess

BANDS = (0.5, 0.5, 0.5)


def pictures() -> torch.Tensor:
    return torch.randint(0, 256, (2, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_an_input_nearly_as_large_is_the_centre() -> None:
    given = pictures()
    assert torch.equal(Preprocess(36, BANDS, BANDS).centre(given), given[:, 2:38, 2:38])
    assert torch.equal(Preprocess(40, BANDS, BANDS).centre(given), given)


def test_a_much_smaller_input_is_the_whole_scaled_and_arrays_are_scaled_as_tensors_are() -> None:
    given = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    given[:, :20] = 200  # the upper half
    seen = Preprocess(20, BANDS, BANDS).centre(given)
    assert seen.shape == (1, 20, 20, 3)
    assert seen.dtype == torch.uint8
    assert (seen[:, :9] == 200).all()
    assert (seen[:, 11:] == 0).all()
    noise = pictures()
    of_array = Preprocess(20, BANDS, BANDS).centre(noise.numpy())
    assert isinstance(of_array, np.ndarray)
    assert np.array_equal(of_array, Preprocess(20, BANDS, BANDS).centre(noise).numpy())
    assert Preprocess(20, BANDS, BANDS)(noise).shape == (2, 3, 20, 20)
