"""Run a script in a process that is cheap to start and that a test may kill: forked with the imports done."""

import atexit
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from hair import errors

ROOT = Path(__file__).parents[1]
# Small, and yet with dropout, batch normalisation and a last group of batches that is short.
TINY = [
    "--encoder_type=tu-test_efficientnet",
    "--decoder_type=FPN",
    "--encoder_weights=none",
    "--img_size=64",
    "--limit=20",
    "--batch_size=2",
    "--grad_accum=3",
    "--ema=0.9",
    "--epochs=4",
]
RUN = Path("weights/tu-test_efficientnet_FPN_celeb")


def start(
    folder: Path, *flags: object, script: str = "train_celeb", hook: Callable[[], None] | None = None, **env: object
) -> multiprocessing.Process:
    """Start `python script flags…` in a folder; what it prints is added to `out.txt` there.

    Args:
        folder: to work in.
        flags: of the script.
        script: without `.py`.
        hook: called in the process before the script.
        env: environment variables.
    """
    os.environ["PYTHONPATH"] = str(ROOT)  # for the server that the processes are forked from
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.fit", script])
    process = context.Process(target=_main, args=(folder, script, [str(flag) for flag in flags], hook, env))
    process.start()
    return process


def run(folder: Path, *flags: object, **options: object) -> int:
    """The same, to the end. Returns the exit status, negative for a signal."""
    process = start(folder, *flags, **options)
    process.join()
    return process.exitcode


def _main(folder: Path, script: str, flags: list[str], hook: Callable[[], None] | None, env: dict) -> None:
    os.chdir(folder)
    os.environ |= {key: str(value) for key, value in env.items()}
    sys.argv = [f"{script}.py", *flags]
    sys.stdout.flush()
    with Path("out.txt").open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    # A fresh pair: those of the server may be closed, and pytest's belong to another process.
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores Ctrl-C
    multiprocessing.set_start_method(None, force=True)  # else workers would come from a fork server of their own
    torch.set_num_threads(1)
    if hook is not None:
        hook()
    try:
        errors.run(importlib.import_module(script).main)
    finally:
        atexit._run_exitfuncs()  # a script ends so, a forked process would not: PyTorch stops its workers here
