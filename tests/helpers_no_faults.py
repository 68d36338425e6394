"""What tests/mutants.py does not plant: changes that no test can see, each with the reason."""

from __future__ import annotations

# Lines that change how fast something is, and not what it does.
UNSEEN: dict[str, str] = {
    r"prefetch|\bahead|\bnext_residual": "a prefetch reads nothing",
    r"\bgrain|row_grain|serial_below|worth_|rows_of_step|\bwork\b|wanted|most_items|words_at_once": "who does what",
    r"(depth|row|query|words_of)_block\b.*=|least_words|most_words|work_per_item": "how work is cut",
    r"small_a|a_stays|at_once|longest|i64 blocks =|pack_first|query_group|gates_at_once": "what stays in the cache",
    r"streamed|milliseconds": "as measured",
    r"huge_page|madvise|alignas|\breserve\(|keeps_memory": "where memory comes from",
    r"CHUNK|chunk_size|buffering|maxsize": "how much is read or kept at once",
    r"os\.kill": "a wrong process would end",
}
# Functions of which the same is true.
UNSEEN_FUNCTIONS = ["rows_of_item", "tiles_of_item", "for_sequences", "map_pages", "fma_burst"]

# Changes that are no faults: the file, the line as it is, what is changed there, and why nothing differs.
EQUIVALENT: list[tuple[str, str, str, str]] = [
    ("csrc/simd/generic.h", "if (n >= W) return load(p);", ">= -> >", "the loop reads W lanes, too"),
    ("csrc/simd/generic.h", "if (n >= W) return store(p, x);", ">= -> >", "the loop writes W lanes, too"),
    ("fastattn/functional/layers.py", "seed = next_seed() if dropout_p else 0", "0 -> 1",
     "without dropout nothing reads the seed"),
    ("fastattn/generation/decoder.py", "use_cache: bool = True,", "True -> False", "the default of a protocol"),
    ("fastattn/models/encoder.py", "if given_positions or batch.shape[-1] > config.max_tokens:", "> -> >=",
     "a check of positions that are all allowed"),
    ("fastattn/text/tokenized_documents.py", "some, size = [], 0", "0 -> 1", "how much is tokenised at once"),
    ("fastattn/text/tokenized.py", "if kept is not None and side.places is not None:", "and -> or",
     "`kept` is there if the sides have places, and both have them or none has"),
]  # fmt: skip
