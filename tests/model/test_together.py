import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hiwl.model.classifier import Answers
from hiwl.model.together import BATCH, Together
from hiwl.model.tree import Routed


def by_brightness(pictures: np.ndarray) -> Answers:
    """The first pixel of each picture as its answer."""
    value = pictures[:, 0, 0, 0].astype(np.int64)
    routes = [[str(one)] for one in value]
    return Answers(Routed(value, value[:, None] / 255, routes), value[:, None].astype(np.float32), value)


def test_each_of_many_threads_gets_its_own_answers_and_batches_are_shared() -> None:
    sizes: list[int] = []

    def slow(pictures: np.ndarray) -> Answers:
        sizes.append(len(pictures))
        time.sleep(0.01)
        return by_brightness(pictures)

    together = Together(slow)

    def ask(number: int) -> None:
        pictures = np.full((1 + number % 3, 2, 2, 3), number, np.uint8)
        answers = together(pictures)
        assert answers.routed.label.tolist() == [number] * len(pictures)
        assert answers.routed.routes == [[str(number)]] * len(pictures)
        assert answers.features.shape == (len(pictures), 1)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))
    assert sum(sizes) == sum(1 + number % 3 for number in range(200))
    assert len(sizes) < 100
    assert max(sizes) <= BATCH + 2


def test_what_goes_wrong_reaches_those_who_asked_and_the_next_are_answered() -> None:
    def picky(pictures: np.ndarray) -> Answers:
        if pictures.max() == 13:
            raise ValueError("thirteen")
        return by_brightness(pictures)

    together = Together(picky)
    with pytest.raises(ValueError, match="thirteen"):
        together(np.full((1, 2, 2, 3), 13, np.uint8))
    assert together(np.full((1, 2, 2, 3), 7, np.uint8)).routed.label.tolist() == [7]
    assert any(thread.name == "hiwl-together" and thread.daemon for thread in threading.enumerate())
