"""Training: optimizers, schedules, batches, metrics, a trainer that saves and continues runs, and runs of tasks."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.training.answer_metrics import answer_f1, exact_match, normalize_answer, squad_scores
    from fastattn.training.averaging import ExponentialMovingAverage, TriggeredAverage, WeightAverage, average_states
    from fastattn.training.batches import Batches, TokenBatches, count_steps
    from fastattn.training.callbacks import TrainerCallback
    from fastattn.training.metrics import (
        EntityScore,
        accuracy,
        bleu,
        character_error_rate,
        chrf,
        edit_distance,
        entity_scores,
        f1_scores,
        matthews_correlation,
        multi_label_f1_scores,
        pearson_correlation,
        spearman_correlation,
    )
    from fastattn.training.micro_batches import NonFiniteLossError
    from fastattn.training.optimizers import SGD, Adam, AdamW, Optimizer, by_layer, clip_grad_norm
    from fastattn.training.pair_batches import PairBatches, pair_arguments
    from fastattn.training.plot import plot_attention, plot_log
    from fastattn.training.run import check_folder, train
    from fastattn.training.run_state import DamagedStateWarning, OtherRunError
    from fastattn.training.schedules import (
        Schedule,
        get_constant_schedule_with_warmup,
        get_cosine_schedule_with_warmup,
        get_inverse_sqrt_schedule,
        get_linear_schedule_with_warmup,
        get_noam_schedule,
        get_scheduler,
        get_slanted_triangular_schedule,
    )
    from fastattn.training.trainer import Trainer

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Batches",
    "DamagedStateWarning",
    "EntityScore",
    "ExponentialMovingAverage",
    "NonFiniteLossError",
    "Optimizer",
    "OtherRunError",
    "PairBatches",
    "Schedule",
    "TokenBatches",
    "Trainer",
    "TrainerCallback",
    "TriggeredAverage",
    "WeightAverage",
    "accuracy",
    "answer_f1",
    "average_states",
    "bleu",
    "by_layer",
    "character_error_rate",
    "check_folder",
    "chrf",
    "clip_grad_norm",
    "count_steps",
    "edit_distance",
    "entity_scores",
    "exact_match",
    "f1_scores",
    "get_constant_schedule_with_warmup",
    "get_cosine_schedule_with_warmup",
    "get_inverse_sqrt_schedule",
    "get_linear_schedule_with_warmup",
    "get_noam_schedule",
    "get_scheduler",
    "get_slanted_triangular_schedule",
    "matthews_correlation",
    "multi_label_f1_scores",
    "normalize_answer",
    "pair_arguments",
    "pearson_correlation",
    "plot_attention",
    "plot_log",
    "spearman_correlation",
    "squad_scores",
    "train",
]

__getattr__ = lazy(
    __name__,
    {
        "answer_metrics": "answer_f1 exact_match normalize_answer squad_scores",
        "averaging": "ExponentialMovingAverage TriggeredAverage WeightAverage average_states",
        "batches": "Batches TokenBatches count_steps",
        "callbacks": "TrainerCallback",
        "micro_batches": "NonFiniteLossError",
        "metrics": "EntityScore accuracy bleu character_error_rate chrf edit_distance entity_scores f1_scores "
        "matthews_correlation multi_label_f1_scores pearson_correlation spearman_correlation",
        "optimizers": "SGD Adam AdamW Optimizer by_layer clip_grad_norm",
        "pair_batches": "PairBatches pair_arguments",
        "plot": "plot_attention plot_log",
        "run": "check_folder train",
        "run_state": "DamagedStateWarning OtherRunError",
        "schedules": "Schedule get_constant_schedule_with_warmup get_cosine_schedule_with_warmup "
        "get_inverse_sqrt_schedule get_linear_schedule_with_warmup get_noam_schedule get_scheduler "
        "get_slanted_triangular_schedule",
        "trainer": "Trainer",
    },
)


def __dir__() -> list[str]:
    return __all__
