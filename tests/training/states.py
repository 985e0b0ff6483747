"""Plans of small trainings, and the states and loaders that they describe."""

import torch

import models
import train_celeb
from dataset import HairDataset, HairLoader, PhotoSet
from training import setup
from training.augment import eval_transform
from training.checkpoint import TrainingState
from training.engine import Compute
from training.flags import TrainingPlan, parse_training, plan_from
from training.losses import build_loss

CPU = torch.device("cpu")
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISE = models.Normalise(*MEAN_STD)
BCE = Compute(CPU, NORMALISE, build_loss("bce"))


def make_plan(*flags: object) -> TrainingPlan:
    """The plan of `python train_celeb.py flags…`."""
    return plan_from(parse_training(train_celeb.build_parser(), [str(flag) for flag in flags]))


def build_state(plan: TrainingPlan, photos: int = 16) -> TrainingState:
    """The state before the first step, for a number of photos."""
    return setup.build_state(plan, CPU, photos)[0]


def build(plan: TrainingPlan, photos: tuple[PhotoSet, PhotoSet]) -> tuple[TrainingState, HairLoader, HairLoader]:
    """A state and the loaders of its training and validation photos, 64 pixels in size."""
    train, valid = (HairDataset(part, eval_transform(64)) for part in photos)
    return build_state(plan, len(photos[0])), *setup.build_loaders(plan, train, valid, CPU)
