"""Arrow A with other ends: heads that label a text, its tokens or a span of it, on single and on merged models.

``forward`` and losses are transformers' own (``transformers.modeling_layers``), for any decoder. The head reads what
``AutoModel`` returns: the last hidden states, of merged experts all of them side by side, as ``config.rule`` scales
them. So a head is for the rule and the weights that it was trained under.

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained("runs/ru", num_labels=3, growth_stage=2)
    model(**AutoTokenizer.from_pretrained("runs/ru")("A good text.", return_tensors="pt")).logits  # [1, 3]

A checkpoint of another task, such as a language model, gives a new head; one of the same class gives its own, and is
refused where that is incomplete. Trained are the head and what trains in the checkpoint: the blocks of its newest
growth stage and the last norm, or nothing of merged experts. To train more, ask at every load:

    from_pretrained("runs/ru", num_frozen_layers=0)  # all blocks; also with growth_stage
    model.model.requires_grad_(True)                 # of merged experts, once the model is loaded
    model.to_dense().substrate.requires_grad_(True)  # the token vectors: the bits of a substrate have no gradient

Shapes: B batch, T tokens, L labels.
"""

from typing import Any

from torch import nn
from transformers.modeling_layers import (
    GenericForQuestionAnswering,
    GenericForSequenceClassification,
    GenericForTokenClassification,
)

from .modeling_frozen_glyph import FrozenGlyphModel, FrozenGlyphPreTrainedModel
from .modeling_frozen_glyph_moe import FrozenGlyphMoEModel, FrozenGlyphMoEPreTrainedModel


class TaskModel:
    """A base model and a head, for the classes below; the constructors of transformers' generic ones know neither
    remote code nor merged states."""

    accepts_loss_kwargs = False  # the losses are means of a batch, which Trainer is to average when it accumulates

    def __init__(self: Any, config: Any) -> None:
        FrozenGlyphPreTrainedModel.__init__(self, config)
        self.num_labels = config.num_labels
        merged: bool = isinstance(self, FrozenGlyphMoEPreTrainedModel)
        self.model = FrozenGlyphMoEModel(config) if merged else FrozenGlyphModel(config)
        self.add_head(len(config.experts) * config.expert_size if merged else config.hidden_size)
        self.post_init()

    def frozen_modules(self: Any) -> list[nn.Module]:
        return self.model.frozen_modules()


class SequenceClassification(TaskModel, GenericForSequenceClassification):
    """A head for a whole text."""

    new_head: str | None = "score"
    pipeline_tag = "text-classification"

    def add_head(self: Any, width: int) -> None:
        self.score = nn.Linear(width, self.num_labels, bias=False)


class TokenClassification(TaskModel, GenericForTokenClassification):
    """A head for each token."""

    new_head: str | None = "score"
    pipeline_tag = "token-classification"

    def add_head(self: Any, width: int) -> None:
        rate = getattr(self.config, "classifier_dropout", None)
        self.dropout = nn.Dropout(0.1 if rate is None else rate)
        self.score = nn.Linear(width, self.num_labels)


class QuestionAnswering(TaskModel, GenericForQuestionAnswering):
    """A head for a span."""

    new_head: str | None = "qa_outputs"
    pipeline_tag = "question-answering"

    def add_head(self: Any, width: int) -> None:
        self.qa_outputs = nn.Linear(width, 2)


class FrozenGlyphForSequenceClassification(SequenceClassification, FrozenGlyphPreTrainedModel):
    """Token ids [B, T] -> logits [B, L] at each text's last token that is not ``pad_token_id``; ``labels`` [B].

    L is ``num_labels``; ``problem_type`` says whether labels exclude each other. ``forward`` raises ``ValueError`` for
    several texts where the configuration names no padding.
    """


class FrozenGlyphForTokenClassification(TokenClassification, FrozenGlyphPreTrainedModel):
    """Token ids [B, T] -> logits [B, T, L]; ``labels`` [B, T], of which -100 is ignored.

    A token sees itself and what stands before it. The rate of dropout before the head is 0.1, or
    ``classifier_dropout`` where a configuration has one.
    """


class FrozenGlyphForQuestionAnswering(QuestionAnswering, FrozenGlyphPreTrainedModel):
    """Token ids [B, T] -> logits [B, T] of the first and of the last token of an answer: ``start_logits``,
    ``end_logits``; ``start_positions`` and ``end_positions`` [B], of which T and more are ignored.

    Ask before the text, ``tokenizer(question, text)``: only then do states of the text know the question.
    """


class FrozenGlyphMoEForSequenceClassification(SequenceClassification, FrozenGlyphMoEPreTrainedModel):
    """``FrozenGlyphForSequenceClassification`` on merged experts."""


class FrozenGlyphMoEForTokenClassification(TokenClassification, FrozenGlyphMoEPreTrainedModel):
    """``FrozenGlyphForTokenClassification`` on merged experts."""


class FrozenGlyphMoEForQuestionAnswering(QuestionAnswering, FrozenGlyphMoEPreTrainedModel):
    """``FrozenGlyphForQuestionAnswering`` on merged experts."""


__all__ = [
    "FrozenGlyphForQuestionAnswering",
    "FrozenGlyphForSequenceClassification",
    "FrozenGlyphForTokenClassification",
    "FrozenGlyphMoEForQuestionAnswering",
    "FrozenGlyphMoEForSequenceClassification",
    "FrozenGlyphMoEForTokenClassification",
    "QuestionAnswering",
    "SequenceClassification",
    "TaskModel",
    "TokenClassification",
]
