"""What the models with a head share."""

from __future__ import annotations

from typing import Any

from fastattn.autograd import Tensor
from fastattn.models.bert.model import BertModel
from fastattn.models.bert.outputs import BertOutput
from fastattn.models.bert.pretrained import BertPreTrainedModel
from fastattn.models.inputs import Tokens
from fastattn.nn.module import Values
from fastattn.nn.parameter import Array


class BertHeadModel(BertPreTrainedModel):
    """What the models with a head share."""

    bert: BertModel

    def _extras(self, batch: Tokens, output: BertOutput) -> dict[str, Any]:
        """`hidden_states` and `attentions` as arrays in the padded shape."""
        states, attentions = output.hidden_states, output.attentions
        return {
            "hidden_states": states and tuple(batch.pad(numbers(x)) for x in states),
            "attentions": attentions and tuple(batch.pad_weights(x) for x in attentions),
        }


def numbers(x: Values) -> Array:
    """An array for the caller: what a Tensor holds is needed unchanged by `backward()`, so it is copied."""
    return x.data.copy() if isinstance(x, Tensor) else x


def tensor(loss: Any) -> Tensor:
    """A loss is a Tensor, also when nothing of it was recorded."""
    return loss if isinstance(loss, Tensor) else Tensor(loss)
