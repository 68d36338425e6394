"""The targets of fuzzing that are text: tokenizers, vocabularies, and the files that readers of text take."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from helpers_fuzz import Target
from helpers_mutations import Mutation, as_bytes, as_json, as_json_lines, as_lines, as_protobuf
from helpers_sentences import VOCABULARY, write_bert, write_json

from fastattn import text
from fastattn.files import byte_lines
from fastattn.formats import sentencepiece_model
from fastattn.text.labelled import LabelledTexts, labelled_texts, plain_texts
from fastattn.text.tables import Row

TEXTS = ["the cat sat.", "", "zz Ünï ☃ a" * 3]
_SPIECE = ("tokenizers", "sentencepiece")

BACKEND: dict[str, Any] = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, token in enumerate(VOCABULARY[:5])
    ],
    "normalizer": {"type": "Sequence", "normalizers": [
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
         "lowercase": True},
        {"type": "Replace", "pattern": {"Regex": "(a|b)+"}, "content": "a"}, {"type": "NFC"}, {"type": "Strip",
         "strip_left": True, "strip_right": True}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "BertPreTokenizer"},
        {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed", "invert": False}]},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                 {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                           "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
              "max_input_chars_per_word": 100, "vocab": {token: i for i, token in enumerate(VOCABULARY)}},
}  # fmt: skip
"""A tokenizer.json with a part of each kind that is read."""
_CHARACTERS = [*"<>acehnostu☃Ü", "Ġ", "th", "he", "the"]


def _tokenizer(folder: Path) -> None:
    write_bert(folder)
    write_json(folder / "tokenizer.json", BACKEND)
    decoder = {str(i): {"content": token, "special": True} for i, token in enumerate(VOCABULARY[:5])}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    more = {"cls_token": "[CLS]", "mask_token": {"content": "[MASK]", "lstrip": True}, "truncation_side": "left"}
    write_json(
        folder / "tokenizer_config.json", {**config, **more, "added_tokens_decoder": decoder, "strip_accents": False}
    )


def _old_tokenizer(folder: Path) -> None:
    write_bert(folder)
    special = {"cls_token": "[CLS]", "pad_token": {"content": "[PAD]"}, "additional_special_tokens": ["<x>", "[MASK]"]}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "added_tokens.json", {"<x>": len(VOCABULARY), "<y>": len(VOCABULARY) + 1})


def write_pairs(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "roberta"})
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *_CHARACTERS]
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nh e\nth e\n", encoding="utf-8")


def _pieces(folder: Path, name: str, model_type: str) -> None:
    """A SentencePiece model with a small table of its own for characters."""
    import sentencepiece

    folder.mkdir(exist_ok=True)
    rules, written = folder / "rules.tsv", io.BytesIO()
    rules.write_text("41\t61\n301\t\nDC\t75 308\n", encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog", "zz u"] * 3), model_writer=written, vocab_size=22,
        minloglevel=2, hard_vocab_limit=False, normalization_rule_tsv=str(rules), user_defined_symbols=["<x>"],
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
    )  # fmt: skip
    rules.unlink()
    (folder / name).write_bytes(written.getvalue())
    write_json(folder / "config.json", {"model_type": model_type})


def _spm(folder: Path) -> None:
    for name in ("source.spm", "target.spm"):
        _pieces(folder, name, "marian")
    model = sentencepiece_model.read_sentencepiece_model(folder / "source.spm")
    tokens = ["</s>", "<unk>", *(piece for piece, _ in model.pieces[3:]), "<pad>"]
    write_json(folder / "vocab.json", {token: i for i, token in enumerate(tokens)})
    config = {
        "tokenizer_class": "MarianTokenizer",
        "model_max_length": 9,
        "added_tokens_decoder": {"0": {"content": "</s>"}},
    }
    write_json(folder / "tokenizer_config.json", config)


def _sides(folder: Path) -> None:
    source, target = text.Characters("abcdef"), text.Characters("xyz")
    text.SubwordTokenizer(source, target).save_pretrained(folder)


def _byte_pairs(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    vocabulary = text.BytePairs.train(["the cat sat on the mat", "a dog"] * 3, 30)
    (folder / "vocabulary.bpe.json").write_bytes(vocabulary.to_bytes())


def _read_pairs(folder: Path) -> Any:
    return text.BytePairs.from_file(folder / "vocabulary.bpe.json")


def _decode_pairs(vocabulary: Any) -> Any:
    return vocabulary.decode([vocabulary.encode(["the cat"]).ids])


def _encode(tokenizer: Any) -> None:
    """The ids of texts and of pairs, cut and not, and what they decode to."""
    tokens = tokenizer.encode(TEXTS)
    tokenizer.encode(TEXTS, max_length=7, text_pairs=TEXTS, return_offsets_mapping=True)
    for ids in np.split(tokens.ids, tokens.cu_seqlens[1:-1]):
        tokenizer.decode([ids])


def _translate_texts(tokenizer: Any) -> None:
    for side in (tokenizer.source, tokenizer.target):
        tokens = side.encode(["the cat", "", "☃ abc"], max_length=5)
        side.decode([tokens.ids])
        side.missing(10)


_SQUAD = {
    "version": "2",
    "data": [{"title": "t", "paragraphs": [{"context": "A cat sat.", "qas": [
        {"id": "1", "question": "Who?", "answers": [{"text": "cat", "answer_start": 2}]},
        {"id": "2", "question": "Why?", "is_impossible": True, "answers": []},
    ]}]}],
}  # fmt: skip
_FILES = {
    "conllu": ("dev.conllu", "# sent_id = a\n1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\t_\n1\tdo\tdo\tAUX\tVB\t_\t0\troot\t_\t_\n"
               "2\tn't\tnot\tPART\tRB\t_\t1\tadvmod\t_\t_\n2.1\tgo\t_\t_\t_\t_\t_\t_\t_\t_\n\n# c\n\n"
               "1\tÜ\t_\tX\t_\t_\t0\troot\t_\t_\n"),
    "conllup": ("dev.conllup", "# global.columns = ID FORM UPOS SCORE\n1\ta\tDET\t0\n2\tcat\tNOUN\t1\n"),
    "conll": ("dev.txt", "-DOCSTART- O\n\n# id = 3\nNew B-LOC\nYork I-LOC\n\n# 1 O\n. O\n"),
    "tsv": ("dev.tsv", 'sentence\tlabel\na cat\t1\n"a dog\t0\n\nÜ\t2.5\n'),
    "csv": ("dev.csv", 'sentence1,sentence2,score\n"a, ""b""\nc",d,1\r\n\n,"",-3\ne,f,0.5\n'),
    "jsonl": ("dev.jsonl",
              '{"text": "a", "label": 2, "tokens": ["a"]}\n\n{"text": "b", "label": 1.5, "tokens": []}\n'),
    "squad": ("dev.json", json.dumps(_SQUAD)),
    "squad rows": ("rows.json", json.dumps({"id": "1", "question": "Who?", "context": "A cat.", "title": "t",
                   "answers": {"text": ["cat"], "answer_start": [2]}})),
    "parallel": ("de.tsv", "Guten Tag\tGood day\nJa\tYes\t\n\t\nÜber\tOver\n"),
    "plain": ("plain.txt", "a cat\ta dog\n\tb\n"),
    "vocabulary": ("words.txt", "<S>\n</S>\n<UNK>\nthe\ncat\n\n"),
    "vectors": ("vectors.txt", "3 2\nthe 1 2\n. . . -0.5 1e-3\ncat 3 4 \n"),
    "documents": ("documents.txt", "A cat sat. It slept.\nYes.\n\nAnother one.\n"),
}  # fmt: skip
"""Small files of text, by target."""


def _write_text(name: str, content: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8", newline="")


def _parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    columns = {"sentence": ["a cat", "a dog", ""], "label": [1, 2, 2], "tokens": [["a"], [], None]}
    parquet.write_table(pyarrow.table(columns), folder / "dev.parquet")


def _tables(name: str, folder: Path) -> LabelledTexts:
    """The rows of a table, each column as text, as a number and as a list; and the table with labels."""
    path = folder / name
    for row in text.read_rows(path, (), optional=("text", "sentence", "label", "score", "tokens")):
        for column in row.values:
            for value in (Row.text, Row.number, Row.texts):
                try:
                    value(row, column)
                except ValueError as error:
                    if str(path) not in str(error):
                        raise LookupError(f"the message does not name the file: {error}") from error
    return labelled_texts(partial(text.read_rows, path), Row.number)


def _with_tags(sentences: Any) -> None:
    for sentence in sentences:
        sentence.with_tags(["X"] * len(sentence.words))


def _plain(folder: Path) -> Any:
    with open(folder / "plain.txt", "rb") as file:
        return plain_texts(byte_lines(file, str(folder / "plain.txt")), str(folder / "plain.txt"))


_READERS: dict[str, tuple[Callable[[Path], Any], Mutation, Callable[[Any], object]]] = {
    "conllu": (lambda folder: text.read_conllu(folder / "dev.conllu"), as_lines, _with_tags),
    "conllup": (lambda folder: text.read_conllu(folder / "dev.conllup", "SCORE"), as_lines, _with_tags),
    "conll": (lambda folder: text.read_conll(folder / "dev.txt"), as_lines, _with_tags),
    "tsv": (partial(_tables, "dev.tsv"), as_lines, id),
    "csv": (partial(_tables, "dev.csv"), as_lines, id),
    "jsonl": (partial(_tables, "dev.jsonl"), as_json_lines, id),
    "squad": (lambda folder: text.read_squad(folder / "dev.json"), as_json, id),
    "squad rows": (lambda folder: text.read_squad(folder / "rows.json"), as_json_lines, id),
    "parallel": (lambda folder: text.read_parallel(folder / "de.tsv"), as_lines, lambda found: found.crc32),
    "plain": (_plain, as_lines, lambda found: found.crc32),
    "vocabulary": (lambda folder: text.Vocabulary.from_file(folder / "words.txt"), as_lines, lambda x: x.ids(["the"])),
    "vectors": (lambda folder: text.read_word_vectors(folder / "vectors.txt", ["the", "Cat", "a"]), as_lines, id),
    "documents": (lambda folder: text.Documents([folder / "documents.txt"]), as_lines, list),
}


def targets() -> Iterator[tuple[str, Target]]:
    """The names and the targets."""
    tokens = ("tokenizers",)
    read = text.Tokenizer.from_pretrained
    for write, name, mutate in (
        (_tokenizer, "tokenizer.json", as_json),
        (_tokenizer, "tokenizer_config.json", as_json),
        (_old_tokenizer, "special_tokens_map.json", as_json),
        (_old_tokenizer, "added_tokens.json", as_json),
        (_old_tokenizer, "vocab.txt", as_lines),
        (write_pairs, "vocab.json", as_json),
        (write_pairs, "merges.txt", as_lines),
    ):
        yield f"tokenizer {name}", Target(write, name, read, mutate, _encode, tokens)
    pieces = {
        "xlm-roberta": "sentencepiece.bpe.model",
        "camembert": "sentencepiece.bpe.model",
        "albert": "spiece.model",
    }
    for kind, name in pieces.items():
        yield (
            f"pieces {kind}",
            Target(partial(_pieces, name=name, model_type=kind), name, read, as_protobuf, _encode, _SPIECE),
        )
    marian = text.MarianTokenizer.from_pretrained
    for name, mutate in (("source.spm", as_protobuf), ("vocab.json", as_json), ("tokenizer_config.json", as_json)):
        yield f"marian {name}", Target(_spm, name, marian, mutate, _translate_texts, _SPIECE)
    sides = text.SubwordTokenizer.from_pretrained
    for name in ("source.characters.json", "tokenizer_config.json"):
        yield f"sides {name}", Target(_sides, name, sides, as_json, _translate_texts)
    yield "byte pairs", Target(_byte_pairs, "vocabulary.bpe.json", _read_pairs, as_json, _decode_pairs, tokens)
    for name, (reader, mutate, use) in _READERS.items():
        yield f"text {name}", Target(partial(_write_text, *_FILES[name]), _FILES[name][0], reader, mutate, use)
    yield "text parquet", Target(_parquet, "dev.parquet", partial(_tables, "dev.parquet"), as_bytes, id, ("pyarrow",))
