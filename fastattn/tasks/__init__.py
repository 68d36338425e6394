"""Tasks: text in, answers out, and the training for it. Names are imported on first use."""

from typing import TYPE_CHECKING

from fastattn._lazy import lazy

if TYPE_CHECKING:
    from fastattn.tasks.answer.recipe import AnswerRecipe
    from fastattn.tasks.answer.task import Answerer
    from fastattn.tasks.bilm.recipe import BiLMRecipe
    from fastattn.tasks.bilm.task import BiLM
    from fastattn.tasks.classify.recipe import ClassifyRecipe
    from fastattn.tasks.classify.task import Classifier
    from fastattn.tasks.embed import SentenceEncoder, TextTooLongError, TruncationWarning
    from fastattn.tasks.embed.recipe import EmbedRecipe
    from fastattn.tasks.embed.task import Embedder
    from fastattn.tasks.fill.recipe import FillUsage
    from fastattn.tasks.fill.task import Filler
    from fastattn.tasks.language_model.recipe import LanguageModelRecipe
    from fastattn.tasks.language_model.task import LanguageModel
    from fastattn.tasks.pretrain.recipe import PretrainRecipe
    from fastattn.tasks.pretrain.task import Pretrainer
    from fastattn.tasks.regress.recipe import RegressRecipe
    from fastattn.tasks.regress.task import Regressor
    from fastattn.tasks.rerank.cross_encoder import CrossEncoder
    from fastattn.tasks.rerank.recipe import RerankRecipe
    from fastattn.tasks.rerank.task import Reranker
    from fastattn.tasks.tag.network import NetworkTagger
    from fastattn.tasks.tag.recipe import TagRecipe
    from fastattn.tasks.tag.task import Tagger
    from fastattn.tasks.translate.recipe import TranslateRecipe
    from fastattn.tasks.translate.task import Translator
    from fastattn.tasks.translate.translations import Translation
    from fastattn.tasks.words import WordEncoder
    from fastattn.training.run import train

__all__ = [
    "AnswerRecipe",
    "Answerer",
    "BiLM",
    "BiLMRecipe",
    "Classifier",
    "ClassifyRecipe",
    "CrossEncoder",
    "EmbedRecipe",
    "Embedder",
    "FillUsage",
    "Filler",
    "LanguageModel",
    "LanguageModelRecipe",
    "NetworkTagger",
    "PretrainRecipe",
    "Pretrainer",
    "RegressRecipe",
    "Regressor",
    "RerankRecipe",
    "Reranker",
    "SentenceEncoder",
    "TagRecipe",
    "Tagger",
    "TextTooLongError",
    "TranslateRecipe",
    "Translation",
    "Translator",
    "TruncationWarning",
    "WordEncoder",
    "train",
]

TASKS = {
    "classify": ("Classifier", "ClassifyRecipe"),
    "regress": ("Regressor", "RegressRecipe"),
    "rerank": ("Reranker", "RerankRecipe"),
    "embed": ("Embedder", "EmbedRecipe"),
    "tag": ("Tagger", "TagRecipe"),
    "bilm": ("BiLM", "BiLMRecipe"),
    "language-model": ("LanguageModel", "LanguageModelRecipe"),
    "translate": ("Translator", "TranslateRecipe"),
    "pretrain": ("Pretrainer", "PretrainRecipe"),
    "answer": ("Answerer", "AnswerRecipe"),
    "fill": ("Filler", "FillUsage"),
}
"""The tasks of `fastattn train` and `fastattn predict`: the name of a folder (with - for _), the task, and its recipe
or, for a task that is not trained, its usage."""

__getattr__ = lazy(
    __name__,
    {
        **{f"{name.replace('-', '_')}.task": task for name, (task, _) in TASKS.items()},
        **{f"{name.replace('-', '_')}.recipe": recipe for name, (_, recipe) in TASKS.items()},
        "embed": "SentenceEncoder TextTooLongError TruncationWarning",
        "rerank.cross_encoder": "CrossEncoder",
        "tag.network": "NetworkTagger",
        "translate.translations": "Translation",
        "words": "WordEncoder",
        ".training": "train",
    },
)


def __dir__() -> list[str]:
    return __all__
