"""Training: optimizers, schedules, batches, and the trainer that saves a run and continues it."""

from fastattn.training.batches import Batches, TokenBatches, count_steps
from fastattn.training.metrics import accuracy, f1_scores
from fastattn.training.optimizers import SGD, Adam, AdamW, Optimizer, clip_grad_norm
from fastattn.training.plot import plot_log
from fastattn.training.schedules import (
    Schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
)
from fastattn.training.trainer import DamagedStateWarning, NonFiniteLossError, Trainer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Batches",
    "DamagedStateWarning",
    "NonFiniteLossError",
    "Optimizer",
    "Schedule",
    "TokenBatches",
    "Trainer",
    "accuracy",
    "clip_grad_norm",
    "count_steps",
    "f1_scores",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "plot_log",
]
