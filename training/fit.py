"""The training loop: `train` opens the data, `fit` trains one fold and writes the run folder."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from torch.optim.lr_scheduler import ReduceLROnPlateau

import models
from dataset import HairDataset, PhotoSet, open_backgrounds, split, training_set
from hair.errors import UserError
from hair.files import atomic, write_json
from training.augment import eval_transform
from training.checkpoint import LAST, CheckpointTimer, TrainingState, alone_in, remove_leftovers, writing
from training.engine import Compute, evaluate, train_one_epoch
from training.flags import TrainingPlan, run_of
from training.logs import Log, open_log
from training.losses import build_loss
from training.processes import first_alone, join_processes, leave_processes, rank, share_buffers, wait_for_all
from training.report import picture_worst, print_start, write_log
from training.setup import build_loaders, build_state
from training.sources import excluded_rows, source_of
from training.stops import stoppable
from training.workers import worker_errors
from utils import choose_device, keep_freed_memory, scores


def train(plan: TrainingPlan, open_indexes: Callable[[], list]) -> None:
    """Open the data and train on one fold or, with `--fold all`, on all folds in turn.

    Args:
        plan: settings of the training.
        open_indexes: opens the data sets; with several processes, the first one calls it before the others.

    Raises:
        UserError: see `fit`; also for errors in processes that load photos.
    """
    device = choose_device(plan.device)
    if device.type == "cpu":
        keep_freed_memory()
    encoder_weights = plan.encoder_weights if plan.resume is None else None  # a checkpoint replaces them
    models.check_names(plan.encoder_type, plan.decoder_type, encoder_weights, [run_of(run) for run in plan.teacher])
    models.check_fit(plan.encoder_type, plan.decoder_type, plan.img_size, plan.decoder_channels)
    join_processes(device)
    try:
        with stoppable(), worker_errors():
            indexes = first_alone(open_indexes)
            exclude = None if plan.exclude is None else first_alone(partial(excluded_rows, indexes, plan.exclude))
            run = run_folder(plan, plan.name)
            choose = partial(_split, indexes, exclude)
            jobs = fold_jobs(plan, run, choose) if plan.fold == "all" else [(plan, run)]
            rows = []
            for job, folder in jobs:
                train_photos, valid_photos = choose(job)
                rows.append(fit(job, folder, train_photos, valid_photos))
            if plan.fold == "all":
                write_folds(run, rows)
    finally:
        leave_processes()


def _split(indexes: list, exclude: list[np.ndarray] | None, plan: TrainingPlan) -> tuple[PhotoSet, PhotoSet]:
    """The photos to train on and to validate on, without the rows in `exclude`."""
    weights = [source_of(text)[1] for text in plan.data_dir]
    return split(indexes, cast(int, plan.fold), plan.n_folds, plan.limit, exclude, weights)


def run_folder(plan: TrainingPlan, name: str) -> Path:
    """The folder of the run to resume, or of a new run."""
    decoder = models.decoder_name(plan.decoder_type)
    return plan.resume or plan.output_dir / f"{plan.encoder_type}_{decoder}_{name}"


def refuse_to_overwrite(plan: TrainingPlan, run: Path) -> None:
    """Raise UserError if the folder contains another run that is not being resumed."""
    if plan.resume is None and any((run / file).exists() for file in ("args.json", "config.json")):
        raise UserError(f"{run}: already contains a run; continue it with --resume, or choose another --output_dir")


def fold_jobs(plan: TrainingPlan, run: Path, choose: Callable) -> list[tuple[TrainingPlan, Path]]:
    """A plan and a folder inside `run` for each fold; writes `args.json` in `run`.

    `choose` returns the photos of a plan, for training and for validation. Raises UserError.
    """
    (_, first), (_, second) = choose(replace(plan, fold=0)), choose(replace(plan, fold=1))
    if first.row.tolist() == second.row.tolist():
        raise UserError("--fold all: this data set has its own split, without folds")
    refuse_to_overwrite(plan, run)
    wait_for_all()  # until all have looked at the folder
    if rank() == 0:
        write_json(run / "args.json", vars(plan) | {"resume": None})
    jobs = []
    for fold in range(plan.n_folds):
        job = replace(plan, fold=fold, output_dir=run, resume=None)
        folder = run_folder(job, f"fold{fold}")
        is_begun = plan.resume is not None and (folder / "args.json").exists()
        jobs.append((replace(job, resume=folder if is_begun else None), folder))
    return jobs


def write_folds(run: Path, rows: list[dict[str, float]]) -> None:
    """Write `folds.csv`: the best epoch of each fold, and the mean and standard deviation over the folds."""
    table = pd.DataFrame([{"fold": fold, **row} for fold, row in enumerate(rows)]).set_index("fold")
    table = pd.concat([table, table.agg(["mean", "std"])])
    if rank() == 0:
        with writing(run / "folds.csv"), atomic(run / "folds.csv") as temporary:
            table.to_csv(temporary, index_label="fold")
        mean, deviation = table["valid_dice"][["mean", "std"]]
        print(f"Dice {mean:.4f} ± {deviation:.4f} over {len(rows)} folds; {run / 'folds.csv'}")


def fit(plan: TrainingPlan, run: Path, train: PhotoSet, valid: PhotoSet) -> dict[str, float]:
    """Train, and write to the run folder: the best model, `last.pth`, `log.csv`, `args.json`, the TensorBoard log.

    Args:
        plan: settings of the training.
        run: the run folder, from `run_folder`.
        train: photos to train on.
        valid: photos to validate on.

    Returns:
        The row of the best epoch in `log.csv`.

    Raises:
        UserError: flags, files or weights do not match, or a loss is not finite.
    """
    device = choose_device(plan.device)
    refuse_to_overwrite(plan, run)
    backgrounds = open_backgrounds(plan.backgrounds)
    check_photos(train, valid)
    state, facts = build_state(plan, device, train.drawn)
    photos = train.digests()
    state.trained_on, state.held_out = np.sort(photos), valid.digests()
    state.order = hashlib.blake2b(photos.tobytes()).hexdigest()
    normalise = models.Normalise(facts["mean"], facts["std"]).to(device)
    compute = Compute(device, normalise, build_loss(plan.loss), plan.apex)
    with alone_in(run):
        open_run(plan, run, state)
        if is_finished(plan, state):
            limit = "--epochs" if state.epoch >= plan.epochs else "--patience"
            return _report_best(run, state, f"already finished, nothing to do (raise {limit} to continue)")
        if rank() == 0:
            print_start(plan, run, state, device, (len(train), len(valid)))
            with writing(run):
                write_json(run / "args.json", vars(plan) | {"resume": None})
        timer = CheckpointTimer(state, run / LAST, plan.save_every, device)
        with timer, open_log(plan.log, run, vars(plan), state.history) as log:
            size = 0
            while not is_finished(plan, state):
                if size != plan.size_at(state.epoch):
                    size = plan.size_at(state.epoch)
                    begin_size(state, size)
                    train_set = training_set(train, plan.augment, size, backgrounds)
                    valid_set = HairDataset(valid, eval_transform(size))
                    train_loader, valid_loader = build_loaders(plan, train_set, valid_set, device)
                train_loader.go_to(state.epoch, state.batch)
                loss = train_one_epoch(state, train_loader, compute, plan, timer.after_step)
                model = state.scored_model()
                share_buffers(model)
                valid_loss, counts = evaluate(model, valid_loader, compute, timer.after_step)
                row = {
                    "img_size": size,
                    "lr": state.optimizer.param_groups[0]["lr"],
                    "loss": loss,
                    "valid_loss": valid_loss,
                    **{f"valid_{key}": value for key, value in scores(*counts).items()},
                }
                is_best = record(state, run, facts, row, plan, log)
                if is_best and log is not None:
                    log.images("worst", picture_worst(model, valid_set, counts, facts), state.epoch)
                timer.restart()
    return _report_best(run, state, "finished")


def check_photos(*sets: PhotoSet) -> None:
    """Raise UserError for a missing or broken photo or mask. The first process checks, the others wait."""

    def check() -> None:
        if rank() == 0:
            for photos in sets:
                photos.check()

    first_alone(check)


def open_run(plan: TrainingPlan, run: Path, state: TrainingState) -> None:
    """Load the run that is resumed, if any, and clean up its folder. Raises UserError."""
    if rank() == 0:
        refuse_to_overwrite(plan, run)  # again: another run may have started here in the meantime
    if plan.resume is not None:
        state.resume(run)
    wait_for_all()  # until all have looked at the folder
    if rank() == 0:
        with writing(run):
            remove_leftovers(run)
            if state.history:  # a process that was killed after its checkpoint may not have written the epoch's row
                write_log(run, state.history)


def begin_size(state: TrainingState, size: int) -> None:
    """Forget the best Dice if the image size has changed: Dice at different sizes cannot be compared."""
    if state.history and state.history[-1]["img_size"] != size:
        state.forget_best()


def _report_best(run: Path, state: TrainingState, how: str) -> dict[str, float]:
    best = best_row(state.history)
    if rank() == 0:
        print(f"{how}: best Dice {best['valid_dice']:.4f} in epoch {best['epoch']}; the model is in {run}")
    return best


def record(state: TrainingState, run: Path, facts: dict, row: dict, plan: TrainingPlan, log: Log | None) -> bool:
    """Finish an epoch: the first process writes the model if it is the best so far, the checkpoint and the logs.

    Because of this order, a run that is killed in between repeats the end of the epoch and writes the same files again.

    Args:
        state: is advanced to the next epoch.
        run: the run folder.
        facts: metadata of the model, for its `config.json`.
        row: row of `log.csv`, without `epoch`.
        plan: settings of the training.
        log: of the first process; None in the others, which write nothing.

    Returns:
        Whether the epoch is the best one at its image size.

    Raises:
        UserError: the disk is full.
    """
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(row["valid_dice"])
    state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
    row = {"epoch": state.epoch, **row}
    state.history.append(row)
    is_best = row["valid_dice"] > state.best
    state.best = max(state.best, row["valid_dice"])
    if log is None:
        return is_best
    with writing(run):
        if is_best:
            result = {key.removeprefix("valid_"): value for key, value in row.items() if key.startswith("valid_")}
            own = {"img_size": row["img_size"], "epoch": state.epoch, "scores": result}
            models.save_model(state.scored_model(), run, facts | own)
        state.save(run / LAST)
        write_log(run, state.history)
        log.scalars(row)
    print(
        f"epoch {state.epoch}/{plan.epochs}  {row['img_size']} px  loss {row['loss']:.4f}  "
        f"valid loss {row['valid_loss']:.4f}  Dice {row['valid_dice']:.4f}  IoU {row['valid_iou']:.4f}  "
        f"per photo {row['valid_dice_per_photo']:.4f}" + ("  best" if is_best else ""),
        flush=True,
    )
    return is_best


def best_row(history: list[dict]) -> dict:
    """The log row of the best epoch since the image size last changed, whose model is in the run folder."""
    others = [row["epoch"] for row in history if row["img_size"] != history[-1]["img_size"]]
    return max(history[max(others, default=0) :], key=lambda row: row["valid_dice"])


def is_finished(plan: TrainingPlan, state: TrainingState) -> bool:
    """Whether all epochs are done, or the last size had `--patience` epochs without a better Dice."""
    if state.epoch >= plan.epochs:
        return True
    if plan.patience == 0 or state.epoch <= sum(plan.size_epochs[:-1]):
        return False
    return state.epoch - best_row(state.history)["epoch"] >= plan.patience
