# ruff: noqa: RUF001
"""Folders of small tokenizers of every kind, as they are on the hub, and mixed texts for them."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("FASTATTN_DATA", Path(__file__).parents[2] / "shared" / "data"))
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.", "Don't you think it's 3,000 miles away? No, 12.5!",
    "Le garçon mange une pomme à la cantine, n'est-ce pas ?",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter",
    "El niño comió piñas y ñoquis en la montaña.", "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "我们试试看！他在做什么？這是什麼啊。", "これは日本語の文章です。カタカナも少し。", "이것은 한국어 문장입니다.",
    "السلام عليكم ورحمة الله وبركاته", "שלום עולם, מה שלומך היום?", "यह हिंदी का एक वाक्य है।", "นี่คือประโยคภาษาไทย",
    "Η γρήγορη καφέ αλεπού πηδάει.", "Tiếng Việt có nhiều dấu thanh.", "ﬁne ligatures and ½ cups, ™ and ① ㍿",
    "``Quoted'' text, it's ''new''; see https://example.org/a?b=c&d=e#f", "def f(x):\n\treturn x ** 2  # square\n",
    "naïve café résumé coöperate", "İstanbul'da ılık bir gün", "price: $19.99 (20% off) -- £5 – €6 ... etc.",
]  # fmt: skip
ODD = [
    "😀", "👩‍👩‍👧‍👦", "🇫🇷", "✊🏽", "\u200d", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u2028", "\u0085",
    "\t", "\n", "\r\n", "\x00", "\x01", "\x1b", "\x7f", "\x9f", "\u0301", "\u0327", "\u200f", "\u202e", "\ufffd",
    "\ue000", "\U0010ffff", "▁", "Ġ", "<s>", "</s>", "<pad>", "<unk>", "<mask>", " <mask> ", "[CLS]", "[SEP]",
    "[MASK]", "[PAD]", "[UNK]", "<S>", "<MASK>", "<s>NOTUSED", "##a", "``", "''", "  ", "     ", "\t ", "1,",
    "ǅ", "ß", "ẞ", "İ", "한", "각", "e\u0301", "Å", "ﬀ", "…",
]  # fmt: skip


def mixed_texts(count: int, seed: int = 16) -> list[str]:
    """Texts in many languages, with emoji, control characters, odd spaces and special tokens; some are empty."""
    source = random.Random(seed)
    lines = [*SENTENCES, *_lines()]

    def text() -> str:
        draw = source.random()
        if draw < 0.01:
            return ""
        if draw < 0.03:
            return "".join(source.choices(ODD, k=source.randrange(1, 6)))
        if draw < 0.08:
            numbers = (
                source.randrange(source.choice((256, 0x3000, 0xD800, 0x11000))) for _ in range(source.randrange(1, 30))
            )
            return "".join(chr(number if number < 0xD800 else number + 0x800) for number in numbers)
        words = " ".join(source.choices(lines, k=source.choice((1, 1, 1, 2)))).split(" ")
        start = source.randrange(max(len(words) - 12, 1))
        words = words[start : start + source.randrange(1, 20)]
        for _ in range(source.choice((0, 0, 1, 3))):
            place = source.randrange(len(words) + 1)
            words.insert(place, source.choice(ODD))
            if place and source.random() < 0.5:
                words[place - 1 : place + 1] = ["".join(words[place - 1 : place + 1])]
        found = source.choice((" ", " ", " ", "  ", "")).join(words)
        return source.choice((found, found, found.upper(), f" {found}", f"{found} "))

    return [text() for _ in range(count)]


def _lines() -> Iterator[str]:
    for path in sorted((DATA / "tatoeba").glob("tatoeba.*-eng.*")):
        yield from path.read_text(encoding="utf-8").split("\n")
    for path in [DATA / "wikitext2" / "wiki.test.raw", DATA / "transliteration" / "ar2en-eval.txt"]:
        if path.is_file():
            yield from path.read_text(encoding="utf-8").split("\n")[:3000]


def _write(folder: Path, model_type: str, config: dict[str, Any] | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def write_word_pieces(folder: Path, model_type: str, special: list[str], config: dict[str, Any] | None) -> Path:
    """vocab.txt of WordPiece, trained on `SENTENCES`."""
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]"))
    lowercase = (config or {}).get("do_lower_case", True)
    backend.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    trainer = tokenizers.trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    words = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    _write(folder, model_type, config)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
    return folder


def _byte_level(special: list[str]) -> Any:
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def write_byte_pairs(folder: Path, model_type: str = "roberta", config: dict[str, Any] | None = None) -> Path:
    """vocab.json and merges.txt of byte-level BPE."""
    backend = _byte_level(["<s>", "<pad>", "</s>", "<unk>"])
    backend.add_special_tokens([])
    state = json.loads(backend.to_str())["model"]
    state["vocab"]["<mask>"] = len(state["vocab"])
    _write(folder, model_type, config)
    (folder / "vocab.json").write_text(json.dumps(state["vocab"]), encoding="utf-8")
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in state["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8")
    return folder


def write_tokenizer_json(folder: Path, model_type: str = "modernbert") -> Path:
    """tokenizer.json of a byte-level BPE with BERT's special tokens, as ModernBERT has it."""
    import tokenizers

    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    backend = _byte_level(names)
    backend.normalizer = tokenizers.normalizers.NFC()
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken("[MASK]", lstrip=True)])
    backend.add_tokens([tokenizers.AddedToken("  ", normalized=True), "|||EMAIL|||"])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    keys = ("unk_token", "cls_token", "sep_token", "pad_token", "mask_token")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    _write(folder, model_type, {**config, **dict(zip(keys, names, strict=True))})
    backend.save(str(folder / "tokenizer.json"))
    return folder


def write_pieces(folder: Path, name: str, family: str, config: dict[str, Any] | None = None, **options: Any) -> Path:
    """A SentencePiece model, a Unigram unless `options` of its trainer say another."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES), model_writer=model, vocab_size=options.pop("vocab_size", 500),
        hard_vocab_limit=False, minloglevel=2, **options,
    )  # fmt: skip
    _write(folder, family, config)
    (folder / name).write_bytes(model.getvalue())
    return folder


def write_albert(folder: Path, config: dict[str, Any] | None = None) -> Path:
    """spiece.model with the special tokens and the symbols of ALBERT."""
    return write_pieces(
        folder, "spiece.model", "albert", config, pad_id=0, unk_id=1, bos_id=-1, eos_id=-1,
        normalization_rule_name="nfkc", control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"],
    )  # fmt: skip


_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MPNET = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
XLM = "sentencepiece.bpe.model"
KINDS: dict[str, Callable[[Path], Path]] = {
    "bert": lambda folder: write_word_pieces(folder, "bert", _BERT, {"tokenizer_class": "BertTokenizer"}),
    "roberta": write_byte_pairs,
    "roberta with a prefix space": lambda folder: write_byte_pairs(
        folder, config={"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": True, "trim_offsets": False}
    ),
    "xlm-roberta": lambda folder: write_pieces(folder, XLM, "xlm-roberta"),
    "gte": lambda folder: write_pieces(folder, XLM, "gte", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "camembert": lambda folder: write_pieces(folder, XLM, "camembert", {"model_max_length": 512}),
    "albert": write_albert,
    "albert cased": lambda folder: write_albert(folder, {"do_lower_case": False, "keep_accents": True}),
    "mpnet": lambda folder: write_word_pieces(folder, "mpnet", _MPNET, None),
    "mpnet cased": lambda folder: write_word_pieces(
        folder, "mpnet", _MPNET, {"tokenizer_class": "MPNetTokenizer", "do_lower_case": False, "mask_token": "<mask>"}
    ),
    "distilbert": lambda folder: write_word_pieces(folder, "distilbert", _BERT, {"do_lower_case": False}),
    "electra": lambda folder: write_word_pieces(folder, "electra", _BERT, {"tokenizer_class": "ElectraTokenizer"}),
    "nomic_bert": lambda folder: write_word_pieces(folder, "nomic_bert", _BERT, None),
    "modernbert": write_tokenizer_json,
}
"""The folder of each kind."""
NEEDS_SENTENCEPIECE = ("xlm-roberta", "gte", "camembert", "albert", "albert cased")
