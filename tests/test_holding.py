"""A run's folder belongs to one command at a time, and to nobody once that is killed."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from xvla_platform.adapt.holding import held
from xvla_platform.errors import XvlaError


def _hold(folder: Path, said: object) -> None:
    with held(folder):
        said.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_the_second_command_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    said = context.Event()
    other = context.Process(target=_hold, args=(tmp_path, said))
    other.start()
    assert said.wait(30)
    with pytest.raises(XvlaError, match="another command is at work on this run"), held(tmp_path, 0.2):
        pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    with held(tmp_path):
        pass
    other.join()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_command_lets_go(tmp_path: Path) -> None:
    with pytest.raises(KeyError), held(tmp_path):
        raise KeyError
    with held(tmp_path, 0.0):
        pass
