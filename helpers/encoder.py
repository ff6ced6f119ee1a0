"""The encoder itself as something to train: texts in, one vector for each out, no head."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import ModelOutput

from helpers.dropout import set_dropout


@dataclass
class Embedding(ModelOutput):
    """What the encoder makes of a batch of texts.

    Attributes:
        loss: 1 - cosine to the dense model's embedding, mean over rows; None without `labels`.
        embedding: [rows, hidden].
    """

    loss: torch.FloatTensor | None = None
    embedding: torch.FloatTensor | None = None


class Encoder(BertModel):
    """BERT whose answer to a text is the mean of its tokens' last hidden states.

    That is how sentence-transformers pools (Reimers & Gurevych 2019, arXiv:1908.10084), and what
    the embedded MiniLM was trained for.
    """

    #: What its config says: to everybody else it is a BERT without a head.
    published_as = "BertModel"

    def __init__(self, config: BertConfig, **options: Any) -> None:
        """Build it without dropout: noise in what is compared, and no labels to overfit.

        The config keeps its own, so a task that starts from this has dropout again.
        """
        super().__init__(config, **options)
        set_dropout(self, 0.0)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> Embedding:
        """Embed a batch; the first three are [rows, tokens], `labels` [rows, hidden]."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = super().forward(input_ids, mask, token_type_ids).last_hidden_state
        embedding = mean_of_tokens(states.float(), mask)
        if labels is None:
            return Embedding(embedding=embedding)
        return Embedding(1 - cosine_similarity(embedding, labels).mean(), embedding)


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the states [rows, tokens, hidden] that the mask [rows, tokens] keeps."""
    kept = mask.unsqueeze(-1).to(states.dtype)
    return (states * kept).sum(1) / kept.sum(1).clamp(min=1)
