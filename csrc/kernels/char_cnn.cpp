#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 chunk = 64;       // filters whose values at all positions stay in the cache until their maximum is taken
constexpr i64 most_words = 64;  // in an item, which reads all filters
constexpr i64 least_words = 8;  // with fewer words per thread, the threads share the filters
constexpr i64 serial_below = 1 << 19;  // multiply-adds, padding included, that are not worth waking a thread
constexpr i64 words_at_once = 8;       // in an item of the embedding's gradient, which reads all filters
constexpr i64 words_of_block = 1024;   // words whose characters' gradients are in memory at a time

constexpr i64 unit = panel_width;  // filters whose gradients are computed together

FASTATTN_INLINE i64 panels_of(const CharConvolution& convolution) {
    return divide_up(convolution.filters, panel_width);
}

template <typename Args>
FASTATTN_INLINE i64 panels_of_all(const Args& args) {
    i64 panels = 0;
    for (i64 i = 0; i < args.count; ++i) panels += panels_of(args.convolutions[i]);
    return panels;
}

// f(convolution, panel) for the panels [begin, end) of all convolutions, 16 filters each.
template <typename Args, typename F>
FASTATTN_INLINE void for_panels(const Args& args, i64 begin, i64 end, F f) {
    for (i64 i = 0, first = 0; i < args.count; ++i) {
        const CharConvolution& convolution = args.convolutions[i];
        const i64 count = panels_of(convolution);
        for (i64 p = greater(begin - first, 0); p < lesser(end - first, count); ++p) f(convolution, p);
        first += count;
    }
}

// The vectors of `count` characters, one after another.
template <typename Args>
FASTATTN_INLINE void look_up(float* to, const Args& args, const i64* ids, i64 count) {
    for (i64 i = 0; i < count; ++i, to += args.dim) {
        const float* from = args.embedding + ids[i] * args.lde;
        for_vectors(args.dim, [&](i64 j, i64 n) { store_n(to + j, load_n(from + j, n), n); });
    }
}

// One word: the maximum over `positions` rows of `values`, row stride `chunk`, plus bias, then the activation.
template <bool WithArgmax, typename F>
FASTATTN_INLINE void take_maximum(float* y, std::int32_t* argmax, const float* values, const float* bias, i64 positions,
                                  i64 filters, F activate) {
    float places[chunk];
    for_floats(0, filters, [&](auto at) __attribute__((always_inline)) {
        using V = decltype(at(values));
        V largest = at(values), place = constant<V>(0.0f);
        for (i64 p = 1; p < positions; ++p) {
            const V value = at(values + p * chunk);
            const auto is_number = equal(largest, largest);  // a NaN stays: max returns its second argument
            if (WithArgmax) {
                const V here = constant<V>(static_cast<float>(p));
                const V better = select(less(largest, value), here, place);
                place = select(is_number, select(equal(value, value), better, here), place);
            }
            largest = select(is_number, max(largest, value), largest);
        }
        at.put(y, activate(largest + at(bias)));
        if (WithArgmax) at.put(places, place);
    });
    if (WithArgmax)
        for (i64 i = 0; i < filters; ++i) argmax[i] = static_cast<std::int32_t>(places[i]);
}

// An item is a group of words and one part of the filters.
struct Plan {
    i64 group, parts;
    i64 capacity, window;  // windows multiplied at a time, and floats of the longest window
    i64 floats_of_windows() const { return round_up(capacity * window, panel_width); }
};

// Some words, and where the last run of one character, the padding, starts in each.
struct Words {
    i64 begin, end;
    i64 runs[most_words];

    Words(const CharCnnForward& args, i64 begin_, i64 end_) : begin(begin_), end(end_) {
        for (i64 word = begin; word < end; ++word) {
            const i64* ids = args.char_ids + word * args.chars;
            i64 run = args.chars - 1;
            while (run > 0 && ids[run - 1] == ids[run]) --run;
            runs[word - begin] = run;
        }
    }
    // The positions with distinct windows: all windows inside the run are equal.
    i64 positions(i64 word, i64 last_position) const { return lesser(runs[word - begin], last_position) + 1; }
};

// The filters [first, last) of a convolution, over some words: as many windows at a time as there is room for.
template <bool WithArgmax, typename F>
FASTATTN_INLINE void convolve(const CharCnnForward& args, const Plan& plan, const CharConvolution& convolution,
                              i64 first, i64 last, const Words& words, float* windows, F activate) {
    const i64 depth = convolution.width * args.dim, last_position = args.chars - convolution.width;
    float* const values = windows + plan.floats_of_windows();
    for (i64 begin = words.begin, end = begin; begin < words.end; begin = end) {
        i64 rows = 0;
        for (; end < words.end && rows + words.positions(end, last_position) <= plan.capacity; ++end) {
            const i64* ids = args.char_ids + end * args.chars;
            for (i64 p = 0; p < words.positions(end, last_position); ++p)
                look_up(windows + rows++ * depth, args, ids + p, convolution.width);
        }
        Tile t{};
        t.a = windows;
        t.c = values;
        t.lda = depth;
        t.ldc = chunk;
        t.panel_stride = depth * panel_width;
        t.depth = depth;
        t.ahead = t.ahead_last = greater(1, RowTiles(rows).columns() / panel_width) * t.panel_stride;
        for (i64 filter = first; filter < last; filter += chunk) {
            t.b = convolution.panels + filter * depth;
            t.columns = lesser(chunk, last - filter);
            multiply_block(t, rows, [](i64, i64) {});
            const float* from = values;
            for (i64 word = begin; word < end; ++word) {
                const i64 positions = words.positions(word, last_position);
                const i64 to = word * args.filters + convolution.column + filter;
                take_maximum<WithArgmax>(args.y + to, WithArgmax ? args.argmax + to : nullptr, from,
                                         convolution.bias + filter, positions, t.columns, activate);
                from += positions * chunk;
            }
        }
    }
}

template <bool WithArgmax, typename F>
FASTATTN_INLINE void convolve_item(const CharCnnForward& args, const Plan& plan, i64 item, float* memory, F activate) {
    const i64 part = item % plan.parts, begin = item / plan.parts * plan.group;
    const Words words(args, begin, lesser(args.words, begin + plan.group));
    for (i64 i = 0; i < args.count; ++i) {
        const CharConvolution& convolution = args.convolutions[i];
        const i64 count = panels_of(convolution);
        const i64 first = count * part / plan.parts * panel_width;
        const i64 last = lesser(convolution.filters, count * (part + 1) / plan.parts * panel_width);
        if (first < last) convolve<WithArgmax>(args, plan, convolution, first, last, words, memory, activate);
    }
}

template <bool WithArgmax>
void convolve_items(const CharCnnForward& args, const Plan& plan, i64 begin, i64 end, float* memory) {
    for (i64 item = begin; item < end; ++item) {
        if (args.tanh)
            convolve_item<WithArgmax>(args, plan, item, memory, [](auto x) { return tanh(x); });
        else
            convolve_item<WithArgmax>(args, plan, item, memory,
                                      [](auto x) { return max(constant<decltype(x)>(0.0f), x); });
    }
}

// d[i] = dy * act'(its argument), of `count` filters of a word from `column` on: relu passes nothing at 0, and a NaN
FASTATTN_INLINE void differentiate(float* d, const CharCnnBackward& args, i64 word, i64 column, i64 count) {
    const float* dy = args.dy + word * args.lddy + column;
    const float* y = args.y + word * args.ldy + column;
    for_vectors(count, [&](i64 i, i64 n) {
        const vf value = load_n(y + i, n), slope = (set1(1.0f) - value) * (set1(1.0f) + value);
        const vf passed = load_n(dy + i, n);
        store_n(d + i, args.tanh ? slope * passed : select(less(value, set1(1.17549435e-38f)), zero(), passed), n);
    });
}

// sum[i] += d * x[i]
FASTATTN_INLINE void add_scaled(float* sum, const float* x, float d, i64 count) {
    fill_floats(sum, 0, count, [&](auto at) __attribute__((always_inline)) {
        return fma(constant<decltype(at(x))>(d), at(x), at(sum));
    });
}

// The gradients of 16 filters: a thread takes all words in order, so the sums do not depend on the number of threads.
void filter_gradients(const CharCnnBackward& args, const CharConvolution& convolution, i64 first, float* chars) {
    const i64 count = lesser(unit, convolution.filters - first), column = convolution.column + first;
    const i64 depth = convolution.width * args.dim;
    float d[unit];
    for (i64 word = 0; word < args.words; ++word) {
        __builtin_prefetch(args.dy + (word + 2) * args.lddy + column);  // of the next words; it cannot fault
        __builtin_prefetch(args.y + (word + 2) * args.ldy + column);
        __builtin_prefetch(args.argmax + (word + 2) * args.filters + column);
        differentiate(d, args, word, column, count);
        if (convolution.dbias)
            for_vectors(count, [&](i64 i, i64 n) {
                float* sum = convolution.dbias + first + i;
                store_n(sum, load_n(sum, n) + load_n(d + i, n), n);
            });
        if (!convolution.dweight) continue;
        const std::int32_t* places = args.argmax + word * args.filters + column;
        i64 begin = args.chars, end = 0;  // of the characters that are needed
        for (i64 i = 0; i < count; ++i) {
            if (d[i] == 0.0f) continue;
            begin = lesser(begin, places[i]);
            end = greater(end, places[i] + convolution.width);
        }
        if (begin < end)
            look_up(chars + begin * args.dim, args, args.char_ids + word * args.chars + begin, end - begin);
        for (i64 i = 0; i < count; ++i)
            if (d[i] != 0.0f)
                add_scaled(convolution.dweight + (first + i) * depth, chars + places[i] * args.dim, d[i], depth);
    }
}

// dchars [words, chars, dim]: for each character of the words [begin, end), the sum over all filters, in order.
void character_gradients(const CharCnnBackward& args, float* dchars, i64 begin, i64 end) {
    const i64 size = args.chars * args.dim;
    float d[unit];
    __builtin_memset(dchars, 0, (end - begin) * size * sizeof(float));
    for_panels(args, 0, panels_of_all(args), [&](const CharConvolution& convolution, i64 panel) {
        const i64 depth = convolution.width * args.dim, first = panel * unit;
        const i64 count = lesser(unit, convolution.filters - first), column = convolution.column + first;
        for (i64 word = begin; word < end; ++word) {
            differentiate(d, args, word, column, count);
            const std::int32_t* places = args.argmax + word * args.filters + column;
            for (i64 i = 0; i < count; ++i)
                if (d[i] != 0.0f)
                    add_scaled(dchars + (word - begin) * size + places[i] * args.dim,
                               convolution.weight + (first + i) * depth, d[i], depth);
        }
    });
}

// Like embedding_backward: a thread owns columns and takes all characters in order.
void add_columns(const CharCnnBackward& args, const float* dchars, const i64* ids, i64 count, i64 begin, i64 end) {
    for (i64 i = 0; i < count; ++i) {
        float* sum = args.dembedding + ids[i] * args.dim + begin;
        const float* d = dchars + i * args.dim + begin;
        for_vectors(end - begin, [&](i64 j, i64 n) { store_n(sum + j, load_n(sum + j, n) + load_n(d + j, n), n); });
    }
}

}  // namespace

void char_cnn_forward(const CharCnnForward& args) {
    Plan plan{};
    i64 work = 0;
    for (i64 i = 0; i < args.count; ++i) {
        const i64 depth = args.convolutions[i].width * args.dim;
        plan.window = greater(plan.window, depth);
        work += args.words * args.chars * args.convolutions[i].filters * depth;
    }
    const i64 wanted = 2 * num_threads();
    plan.group = greater(least_words, lesser(most_words, args.words / (2 * wanted)));
    plan.capacity = greater(row_block, args.chars);
    const i64 groups = divide_up(args.words, plan.group);
    plan.parts = groups < wanted ? divide_up(wanted, greater(1, groups)) : 1;
    const i64 items = groups * plan.parts;
    parallel_for(
        items, work < serial_below ? items : 1,
        [&](i64 begin, i64 end, float* memory) {
            if (args.argmax)
                convolve_items<true>(args, plan, begin, end, memory);
            else
                convolve_items<false>(args, plan, begin, end, memory);
        },
        plan.floats_of_windows() + plan.capacity * chunk);
}

void char_cnn_backward(const CharCnnBackward& args) {
    const i64 size = args.chars * args.dim;
    // Before anything is added to, since the allocation may fail.
    float* const dchars = args.dembedding ? shared_scratch(lesser(args.words, words_of_block) * size) : nullptr;
    bool has_filters = false;
    for (i64 i = 0; i < args.count; ++i)
        has_filters = has_filters || args.convolutions[i].dweight || args.convolutions[i].dbias;
    if (has_filters)
        parallel_for(
            panels_of_all(args), 1,
            [&](i64 begin, i64 end, float* chars) {
                for_panels(args, begin, end, [&](const CharConvolution& convolution, i64 panel) {
                    filter_gradients(args, convolution, panel * unit, chars);
                });
            },
            size);
    if (!args.dembedding) return;
    const i64 columns = round_up(greater(16, args.dim / num_threads()), 16);
    for (i64 first = 0; first < args.words; first += words_of_block) {
        const i64 words = lesser(words_of_block, args.words - first);
        parallel_for(words, words_at_once, [&](i64 begin, i64 end, float*) {
            character_gradients(args, dchars + begin * size, first + begin, first + end);
        });
        parallel_for(args.dim, columns, [&](i64 begin, i64 end, float*) {
            add_columns(args, dchars, args.char_ids + first * args.chars, words * args.chars, begin, end);
        });
    }
}

}  // namespace fastattn::FASTATTN_ISA
