"""When it is whose turn, and what is kept of visitors."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from hair.photos import Photo
from tests.conftest import ROOT
from tests.web.conftest import DEMO, VISITOR, Blind, put
from web.page import session_of
from web.visitors import Prediction, PredictionKey, ResultStore, Turns, UserMessage


def test_only_uploads_are_deleted(events, tmp_path):
    mine = Path(shutil.copy(DEMO, tmp_path / "mine.jpg"))
    folder = events.inbox / "folder"
    folder.mkdir()
    for path in (mine, events.inbox / ".." / ".." / "mine.jpg", folder, events.inbox):
        events.note_uploads(str(path), VISITOR)
    upload = put(events, DEMO)
    events.note_uploads([str(upload)], VISITOR)
    events.forget(VISITOR)
    assert mine.is_file() and folder.is_dir()
    assert not upload.exists()


def test_the_prediction_of_who_left_while_the_network_ran_is_not_kept(events):
    key = PredictionKey(session_of(VISITOR), str(DEMO), "auto")
    kept = events.predict(key)
    assert events.store.get(key) is kept
    assert events.store.key_of(events.store.token(key)) == key
    events.segmenter = {"auto": Blind(meanwhile=lambda: events.forget(VISITOR))}.get
    late = key._replace(path=str(ROOT / "demo" / "2.jpg"))
    events.predict(late)
    assert events.store.get(late) is None
    assert events.store.key_of(events.store.token(late)) is None


def test_predictions_that_were_dropped_are_made_again(events):
    """A visitor may download results although others came meanwhile."""
    key = PredictionKey(session_of(VISITOR), str(DEMO), "auto")
    events.store = ResultStore(events.inbox.parent / "results", events.inbox, max_bytes=1)
    first, token = events.predict(key), events.store.token(key)
    events.predict(key._replace(path=str(ROOT / "demo" / "2.jpg")))
    assert events.store.get(key) is None
    assert events.store.key_of(token) == key and events.store.token(key) == token
    assert np.array_equal(events.predict(key).photo.pixels, first.photo.pixels)


def test_the_memory_of_a_prediction_is_known():
    pixels, alpha = np.zeros((10, 20, 3), np.uint8), np.zeros((10, 20), np.uint8)
    probabilities = np.zeros((10, 20), np.float32)
    assert Prediction("", Photo(pixels, None, pixels), probabilities, 320).nbytes == 200 * (3 + 4 + 4)
    assert Prediction("", Photo(pixels, alpha, pixels.copy()), probabilities, 320).nbytes == 200 * (3 + 4 + 4 + 1 + 3)


# ---------------------------------------------------------------------------------------------------- turns


def test_photos_together_stay_within_the_limits():
    turns, lock, running, most = Turns(at_once=3, pixels=50, waiting=99), threading.Lock(), [], []

    def process(pixels: int) -> None:
        with turns.take(pixels):
            with lock:
                running.append(pixels)
                most.append((len(running), sum(running)))
            threading.Event().wait(0.002)
            with lock:
                running.remove(pixels)

    sizes = [20, 20, 20, 1, 1, 1, 1, 60, 49, 2] * 4
    with ThreadPoolExecutor(len(sizes)) as pool:
        list(pool.map(process, sizes))
    assert len(most) == len(sizes)
    assert all(count <= 3 and (total <= 50 or count == 1) for count, total in most)
    assert max(count for count, _ in most) > 1


def test_turns_come_in_order_and_a_large_photo_is_not_passed_by():
    turns, order, threads = Turns(pixels=50), [], []

    def process(pixels: int) -> None:
        with turns.take(pixels):
            order.append(pixels)

    with turns.take(40):
        for number, pixels in enumerate((30, 5, 6), 1):
            threads.append(threading.Thread(target=process, args=[pixels]))
            threads[-1].start()
            while len(turns._waiting) < number:
                pass
        assert not order  # 5 would have room, but 30 came before
    for thread in threads:
        thread.join()
    assert order[0] == 30 and sorted(order) == [5, 6, 30]


def test_who_would_wait_too_long_is_told():
    turns = Turns(at_once=1, waiting=0)
    with turns.take(1):
        with pytest.raises(UserMessage, match="busy"), turns.take(1):
            pass
        patient = threading.Thread(target=lambda: turns.take(1, is_patient=True).__enter__())
        patient.start()
        while not turns._waiting:
            pass
    patient.join()


def test_a_turn_ends_with_an_error():
    turns = Turns(at_once=1, waiting=0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), turns.take(1):
            raise ZeroDivisionError
