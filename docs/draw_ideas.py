"""Pictures of how it works: ragged batches, the same bits, pieces, the tape, the memory of a step."""

from __future__ import annotations

from itertools import accumulate, pairwise

from draw_svg import box, svg, text


def draw_ragged(lengths: tuple[int, ...] = (7, 3, 12, 5, 9, 4)) -> str:
    """A batch of sentences as a padded rectangle, and as the rows that are really computed."""
    step, cell, longest, tokens = 16, 13, max(lengths), sum(lengths)
    colours = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#9c6b4e")
    parts = [text(0, 14, "padded", "title"), text(58, 14, f"{len(lengths) * longest} rows computed", "quiet")]
    for row, (length, colour) in enumerate(zip(lengths, colours, strict=True)):
        for column in range(longest):
            look = {"colour": colour} if column < length else {"style": "gap"}
            parts.append(box(1 + column * step, 27 + row * step, cell, cell, **look))
    left = longest * step + 40
    parts.append(text(left, 14, "fastattn", "title"))
    parts.append(text(left + 62, 14, f"{tokens} rows computed: tokens, and where each sentence begins", "quiet"))
    offsets = [0, *accumulate(lengths)]
    for start, stop, colour in zip(offsets, offsets[1:], colours, strict=False):
        parts += [box(left + i * step, 46, cell, cell, colour=colour) for i in range(start, stop)]
    for offset in offsets:
        x = left + offset * step - 1.5
        parts.append(f'<line x1="{x:g}" y1="42" x2="{x:g}" y2="70" class="rule"/>')
        parts.append(text(x, 83, str(offset), "small", "middle"))
    parts.append(text(left, 108, "cu_seqlens = [" + ", ".join(map(str, offsets)) + "]", "small quiet"))
    return svg(left + tokens * step + 12, 130, "A padded batch and a ragged one", parts)


def draw_bits() -> str:
    """One sentence alone, in two batches and with two threads: the same chain of sums, so the same bits."""
    step, cell = 16, 13
    panels = (("alone", (5,), 0), ("in a batch", (7, 5, 3), 1), ("in another order", (3, 7, 5), 2))
    parts, left = [], 24.0
    for name, lengths, ours in panels:
        parts.append(text(left, 14, name, "title"))
        offsets = [0, *accumulate(lengths)]
        for i, (start, stop) in enumerate(pairwise(offsets)):
            style = "ours" if i == ours else "bar"
            parts += [box(left + token * step, 26, cell, cell, style) for token in range(start, stop)]
        middle = left + (offsets[ours] + lengths[ours] / 2) * step - 1.5
        parts.append(f'<line x1="{middle:g}" y1="44" x2="{middle:g}" y2="66" class="arrow"/>')
        parts.append(text(middle, 82, "3e1c 07b5 bd90", "small ours", "middle"))
        left += max(offsets[-1] * step, 130) + 40
    words = "one chain of multiply-adds for each number, in an order that neighbours and threads do not change"
    parts.append(text(24, 110, words, "small quiet"))
    return svg(left, 118, "A sentence has the same bits alone and in any batch", parts)


LANES = (  # a lane of a region with a barrier, and of pieces: begin, length and style of each box
    ("caller", ((0, 2, "ours"), (2, 2, "ours"), (4, 8, "gap")), ((0, 2, "ours"), (2, 2, "ours"), (4, 2, "ours"))),
    ("worker", ((0, 2, "ours"), (2, 2, "ours"), (4, 8, "gap")), ((0, 2, "ours"), (2, 2, "ours"), (4, 2, "ours"))),
    ("late worker", ((0, 8, "bar"), (8, 2, "ours"), (10, 2, "ours")), ((0, 8, "bar"),)),
)


def draw_threads() -> str:
    """A kernel of six pieces while another process holds a processor: a region with a barrier waits, pieces do not."""
    unit, lane, label_width, height = 24, 26, 84, 16
    parts = []
    for column, (title, end) in enumerate((("a region with a barrier", 12), ("pieces", 6))):
        left = label_width + column * (12 * unit + 60)
        parts.append(text(left, 14, title, "title"))
        for row, (name, *boxes) in enumerate(LANES):
            y = 28 + row * lane
            if not column:
                parts.append(text(0, y + 12, name, "small"))
            parts += [box(left + a * unit + 1, y, n * unit - 2, height, style) for a, n, style in boxes[column]]
        x = left + end * unit
        parts.append(f'<line x1="{x}" y1="22" x2="{x}" y2="{28 + 3 * lane}" class="arrow"/>')
        parts.append(text(x, 28 + 3 * lane + 14, "the call returns", "small quiet", "middle"))
    words = (("ours", "a piece"), ("gap", "waits at the barrier"), ("bar", "held up by another process"))
    for i, (style, meaning) in enumerate(words):
        x, y = label_width + i * 180, 28 + 3 * lane + 30
        parts += [box(x, y, 24, 12, style), text(x + 32, y + 10, meaning, "small quiet")]
    return svg(label_width + 24 * unit + 80, 28 + 3 * lane + 48, "Threads with a barrier, and with pieces", parts)


def draw_tape() -> str:
    """Calls write nodes, and `backward` walks over them in the other order."""
    calls = ("embedding_sum", "linear", "qkv_attention", "layer_norm", "cross_entropy")
    width, gap, parts = 116, 34, []
    for i, call in enumerate(calls):
        x = i * (width + gap) + 1
        parts.append(box(x, 30, width, 30, "gap"))
        parts.append(text(x + width / 2, 49, call, "small title", "middle"))
        if i:
            middle = x - gap / 2
            parts.append(text(middle, 42, "→", "quiet", "middle"))
            parts.append(text(middle, 60, "←", "ours", "middle"))
        if call in ("embedding_sum", "linear", "layer_norm"):
            parts.append(text(x + width / 2, 80, "weight.grad", "small ours", "middle"))
    parts.append(text(0, 14, "→ the forward pass notes each call with what its gradient needs", "small quiet"))
    parts.append(text(0, 104, "← backward() walks the notes once, frees each, adds to the parameters", "small ours"))
    return svg(len(calls) * (width + gap), 112, "The tape", parts)


KEPT = (  # a call, what its node keeps, whether it has parameters
    ("embedding_sum", "ids", True),
    ("linear", "x", True),
    ("qkv_attention", "q k v, out, lse", False),
    ("layer_norm", "x, mean, rstd", True),
    ("linear + gelu", "x, before gelu", True),
    ("linear", "x", True),
    ("cross_entropy", "logits, lse", False),
)
MOMENTS = (  # what is done, which calls still keep their arrays, which parameters have a gradient
    ("loss = model(...).loss", 7, 7),
    ("loss.backward(): half", 4, 4),
    ("loss.backward(): done", 0, 0),
    ("step(), zero_grad()", 0, 7),
)


def draw_training() -> str:
    """What a training step holds as it goes on: arrays for the backward pass, then gradients, then nothing."""
    column, label, cell, row, top = 104, 150, 96, 52, 44
    parts = []
    for i, (call, kept, _) in enumerate(KEPT):
        middle = label + i * column + cell / 2
        parts.append(text(middle, 14, call, "small title", "middle"))
        parts.append(text(middle, 30, kept, "small quiet", "middle"))
    for j, (moment, forward, without) in enumerate(MOMENTS):
        y = top + j * row
        parts.append(text(0, y + 22, moment, "small"))
        for i, (_, _, trains) in enumerate(KEPT):
            x = label + i * column
            parts.append(box(x, y, cell, 18, "bar" if i < forward else "gap"))
            if trains:
                parts.append(box(x, y + 22, cell, 12, "gap" if i < without else "ours"))
    y = top + len(MOMENTS) * row + 6
    words = (("bar", "kept for the backward pass"), ("ours", "gradient"), ("gap", "not there yet, or freed"))
    for i, (style, meaning) in enumerate(words):
        parts += [box(label + i * 220, y, 24, 12, style), text(label + i * 220 + 32, y + 10, meaning, "small quiet")]
    return svg(label + len(KEPT) * column, y + 20, "What is in memory during a training step", parts)
