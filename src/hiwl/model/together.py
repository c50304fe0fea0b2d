"""Pictures of requests that run at once, answered in one batch: a network is much faster on many than on one."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from hiwl.model.classifier import Answers
from hiwl.model.pixels import Pixels
from hiwl.model.tree import Routed

BATCH = 64
PATIENCE = 0.003  # seconds that a picture waits for company


class _Asked(NamedTuple):
    pictures: Pixels
    answers: "Future[Answers]"


class Together:
    """Stands before a classifier, for threads that ask it at once."""

    def __init__(self, classifier: Callable[[Pixels], Answers]) -> None:
        self._classifier = classifier
        self._asked: queue.SimpleQueue[_Asked] = queue.SimpleQueue()
        threading.Thread(target=self._answer, daemon=True, name="hiwl-together").start()

    def __call__(self, pictures: Pixels) -> Answers:
        """As the classifier, after other threads' pictures that came before."""
        asked = _Asked(pictures, Future())
        self._asked.put(asked)
        return asked.answers.result()

    def _answer(self) -> None:
        while True:
            batch = self._batch()
            try:
                answers = self._classifier(np.concatenate([asked.pictures for asked in batch]))
            except Exception as error:
                for asked in batch:
                    asked.answers.set_exception(error)
                continue
            end = 0
            for asked in batch:
                start, end = end, end + len(asked.pictures)
                asked.answers.set_result(_part(answers, slice(start, end)))

    def _batch(self) -> list[_Asked]:
        batch = [self._asked.get()]
        patient_until = time.monotonic() + PATIENCE
        while sum(len(asked.pictures) for asked in batch) < BATCH:
            try:
                batch.append(self._asked.get(timeout=max(0.0, patient_until - time.monotonic())))
            except queue.Empty:
                break
        return batch


def _part(answers: Answers, rows: slice) -> Answers:
    label, probabilities, routes = answers.routed
    return Answers(Routed(label[rows], probabilities[rows], routes[rows]), answers.features[rows], answers.views[rows])
