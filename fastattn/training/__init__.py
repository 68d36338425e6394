"""Training: optimizers, schedules, batches, metrics, a trainer that saves and continues runs, and runs of tasks."""

from fastattn.training.averaging import ExponentialMovingAverage, average_states
from fastattn.training.batches import Batches, TokenBatches, count_steps
from fastattn.training.metrics import accuracy, bleu, character_error_rate, chrf, edit_distance, f1_scores
from fastattn.training.optimizers import SGD, Adam, AdamW, Optimizer, clip_grad_norm
from fastattn.training.pair_batches import PairBatches, pair_arguments
from fastattn.training.plot import plot_attention, plot_log
from fastattn.training.run import check_folder, train
from fastattn.training.schedules import (
    Schedule,
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_inverse_sqrt_schedule,
    get_linear_schedule_with_warmup,
    get_noam_schedule,
)
from fastattn.training.trainer import DamagedStateWarning, NonFiniteLossError, Trainer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Batches",
    "DamagedStateWarning",
    "ExponentialMovingAverage",
    "NonFiniteLossError",
    "Optimizer",
    "PairBatches",
    "Schedule",
    "TokenBatches",
    "Trainer",
    "accuracy",
    "average_states",
    "bleu",
    "character_error_rate",
    "check_folder",
    "chrf",
    "clip_grad_norm",
    "count_steps",
    "edit_distance",
    "f1_scores",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_noam_schedule",
    "pair_arguments",
    "plot_attention",
    "plot_log",
    "train",
]
