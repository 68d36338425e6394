#include "../parallel.h"
#include "../simd/math.h"
#include "gemm.h"
#include "panel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 chunk = 64;              // filters whose values at all positions wait in the cache for their maximum
constexpr i64 most_words = 64;         // of an item: each item reads all filters
constexpr i64 least_words = 8;         // unless there are too few of them for all threads: then these share the filters
constexpr i64 serial_below = 1 << 19;  // multiply-adds, if there were no padding, that are not worth waking a thread
constexpr i64 words_at_once = 8;       // of the gradient of the embedding: each of its items reads all filters, too
constexpr i64 words_of_block = 1024;   // whose characters' gradients are in memory at a time

FASTATTN_INLINE i64 panels_of(const CharConvolution& convolution) {
    return (convolution.filters + panel_width - 1) / panel_width;
}

// The characters from `first` on, as vectors one after another.
FASTATTN_INLINE void look_up(float* to, const float* embedding, i64 lde, i64 dim, const i64* ids, i64 count) {
    for (i64 i = 0; i < count; ++i, to += dim) {
        const float* from = embedding + ids[i] * lde;
        for_vectors(dim, [&](i64 j, i64 n) { store_n(to + j, load_n(from + j, n), n); });
    }
}

struct Plan {
    CharCnnForward args;
    float* panels;         // of the weights that are not in panels, one after another
    i64 group, parts;      // an item is a group of words and one of the parts of the filters
    i64 capacity, window;  // windows that are multiplied at a time, and floats of the longest
};

// Fills the panels [begin, end) of those that are to be filled.
void fill_panels(void* context, i64 begin, i64 end, void*) {
    const Plan& plan = *static_cast<Plan*>(context);
    float* panels = plan.panels;
    i64 first = 0;
    for (i64 i = 0; i < plan.args.count; ++i) {
        const CharConvolution& convolution = plan.args.convolutions[i];
        if (convolution.panels) continue;
        const i64 depth = convolution.width * plan.args.dim, count = panels_of(convolution);
        for (i64 p = greater(begin - first, 0); p < lesser(end - first, count); ++p) {
            const i64 filter = p * panel_width;
            pack_panel(panels + filter * depth, convolution.weight + filter * depth, depth,
                       lesser(panel_width, convolution.filters - filter), depth);
        }
        first += count;
        panels += count * panel_width * depth;
    }
}

// One word: from the values [positions] of so many filters, row stride `chunk`, their maximum, bias and activation.
template <bool WithArgmax, typename F>
FASTATTN_INLINE void take_maximum(float* y, std::int32_t* argmax, const float* values, const float* bias, i64 positions,
                                  i64 filters, F activate) {
    float places[chunk];
    for_floats(0, filters, [&](auto at) __attribute__((always_inline)) {
        using V = decltype(at(values));
        V largest = at(values), place = constant<V>(0.0f);
        for (i64 p = 1; p < positions; ++p) {
            const V value = at(values + p * chunk);
            const auto is_number = equal(largest, largest);  // a NaN stays: max gives its second argument
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

// The filters [first, last) of a convolution, whose panels begin at `panels`, over some words.
template <bool WithArgmax, typename F>
FASTATTN_INLINE void convolve(const Plan& plan, const CharConvolution& convolution, const float* panels, i64 first,
                              i64 last, i64 word_begin, i64 word_end, const i64* runs, float* windows, F activate) {
    const CharCnnForward& args = plan.args;
    const i64 depth = convolution.width * args.dim;
    float* const values = windows + round_up(plan.capacity * plan.window, panel_width);
    const auto positions = [&](i64 word) {  // that differ: the windows inside the run are all the same
        return lesser(runs[word], args.chars - convolution.width) + 1;
    };
    for (i64 begin = 0, end = 0; word_begin + begin < word_end; begin = end) {
        i64 rows = 0;
        for (; word_begin + end < word_end && rows + positions(end) <= plan.capacity; ++end) {
            const i64* ids = args.char_ids + (word_begin + end) * args.chars;
            for (i64 p = 0; p < positions(end); ++p)
                look_up(windows + (rows + p) * depth, args.embedding, args.lde, args.dim, ids + p, convolution.width);
            rows += positions(end);
        }
        Tile t{};
        t.a = windows;
        t.c = values;
        t.lda = depth;
        t.ldc = chunk;
        t.panel_stride = depth * panel_width;
        t.depth = depth;
        t.ahead = greater(1, RowTiles(rows).columns() / panel_width) * t.panel_stride;
        for (i64 filter = first; filter < last; filter += chunk) {
            t.b = panels + filter * depth;
            t.columns = lesser(chunk, last - filter);
            multiply_block(t, rows, [](i64, i64) {});
            const float* from = values;
            for (i64 word = begin; word < end; ++word) {
                const i64 to = (word_begin + word) * args.filters + convolution.column + filter;
                take_maximum<WithArgmax>(args.y + to, WithArgmax ? args.argmax + to : nullptr, from,
                                         convolution.bias + filter, positions(word), t.columns, activate);
                from += positions(word) * chunk;
            }
        }
    }
}

template <bool WithArgmax, typename F>
void convolve_item(const Plan& plan, i64 item, float* memory, F activate) {
    const CharCnnForward& args = plan.args;
    const i64 part = item % plan.parts, begin = item / plan.parts * plan.group;
    const i64 end = lesser(args.words, begin + plan.group);
    i64 runs[most_words];  // where the last run of one character begins: the padding
    for (i64 word = begin; word < end; ++word) {
        const i64* ids = args.char_ids + word * args.chars;
        i64 run = args.chars - 1;
        while (run > 0 && ids[run - 1] == ids[run]) --run;
        runs[word - begin] = run;
    }
    const float* filled = plan.panels;
    for (i64 i = 0; i < args.count; ++i) {
        const CharConvolution& convolution = args.convolutions[i];
        const i64 count = panels_of(convolution);
        const i64 first = count * part / plan.parts * panel_width;
        const i64 last = lesser(convolution.filters, count * (part + 1) / plan.parts * panel_width);
        if (first < last)
            convolve<WithArgmax>(plan, convolution, convolution.panels ? convolution.panels : filled, first, last,
                                 begin, end, runs, memory, activate);
        if (!convolution.panels) filled += count * panel_width * convolution.width * args.dim;
    }
}

template <bool WithArgmax>
void convolve_items(void* context, i64 begin, i64 end, void* memory) {
    const Plan& plan = *static_cast<Plan*>(context);
    float* const floats = static_cast<float*>(memory);
    for (i64 item = begin; item < end; ++item) {
        if (plan.args.tanh)
            convolve_item<WithArgmax>(plan, item, floats, [](auto x) { return tanh(x); });
        else
            convolve_item<WithArgmax>(plan, item, floats, [](auto x) { return max(constant<decltype(x)>(0.0f), x); });
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

constexpr i64 unit = 16;  // filters that are treated together

// The gradients of 16 filters: a thread takes all words in order, so any number of threads gives the same sums.
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
            look_up(chars + begin * args.dim, args.embedding, args.lde, args.dim,
                    args.char_ids + word * args.chars + begin, end - begin);
        for (i64 i = 0; i < count; ++i)
            if (d[i] != 0.0f)
                add_scaled(convolution.dweight + (first + i) * depth, chars + places[i] * args.dim, d[i], depth);
    }
}

void filter_units(void* context, i64 begin, i64 end, void* memory) {
    const CharCnnBackward& args = *static_cast<CharCnnBackward*>(context);
    i64 first = 0;
    for (i64 i = 0; i < args.count; ++i) {
        const i64 count = panels_of(args.convolutions[i]);
        for (i64 u = greater(begin - first, 0); u < lesser(end - first, count); ++u)
            filter_gradients(args, args.convolutions[i], u * unit, static_cast<float*>(memory));
        first += count;
    }
}

struct CharacterGradients {
    CharCnnBackward args;
    float* dchars;     // [words_of_block, chars, dim]: of each character of each word
    i64 first, words;  // of the block
};

// The gradients of the characters of some words: those of all filters, in order.
void character_gradients(void* context, i64 begin, i64 end, void*) {
    const auto& [args, dchars, block, words] = *static_cast<CharacterGradients*>(context);
    const i64 size = args.chars * args.dim;
    float d[unit];
    __builtin_memset(dchars + begin * size, 0, (end - begin) * size * sizeof(float));
    for (i64 c = 0; c < args.count; ++c) {
        const CharConvolution& convolution = args.convolutions[c];
        const i64 depth = convolution.width * args.dim;
        for (i64 first = 0; first < convolution.filters; first += unit) {
            const i64 count = lesser(unit, convolution.filters - first), column = convolution.column + first;
            for (i64 word = begin; word < end; ++word) {
                differentiate(d, args, block + word, column, count);
                const std::int32_t* places = args.argmax + (block + word) * args.filters + column;
                for (i64 i = 0; i < count; ++i)
                    if (d[i] != 0.0f)
                        add_scaled(dchars + word * size + places[i] * args.dim,
                                   convolution.weight + (first + i) * depth, d[i], depth);
            }
        }
    }
}

// As embedding_backward: a thread has columns of its own and takes all characters in order.
void add_columns(void* context, i64 begin, i64 end, void*) {
    const auto& [args, dchars, block, words] = *static_cast<CharacterGradients*>(context);
    const i64* ids = args.char_ids + block * args.chars;
    for (i64 i = 0; i < words * args.chars; ++i) {
        float* sum = args.dembedding + ids[i] * args.dim + begin;
        const float* d = dchars + i * args.dim + begin;
        for_vectors(end - begin, [&](i64 j, i64 n) { store_n(sum + j, load_n(sum + j, n) + load_n(d + j, n), n); });
    }
}

}  // namespace

void char_cnn_forward(const CharCnnForward& args) {
    Plan plan{};
    plan.args = args;
    i64 unfilled = 0, floats = 0, work = 0;
    for (i64 i = 0; i < args.count; ++i) {
        const CharConvolution& convolution = args.convolutions[i];
        const i64 depth = convolution.width * args.dim;
        plan.window = greater(plan.window, depth);
        work += args.words * args.chars * convolution.filters * depth;
        if (convolution.panels) continue;
        unfilled += panels_of(convolution);
        floats += panels_of(convolution) * panel_width * depth;
    }
    if (unfilled) {
        plan.panels = static_cast<float*>(shared_scratch(floats * i64{sizeof(float)}));
        parallel_for(unfilled, 8, fill_panels, &plan);
    }
    const i64 wanted = 2 * num_threads();
    plan.group = greater(least_words, lesser(most_words, args.words / (2 * wanted)));
    const i64 groups = (args.words + plan.group - 1) / plan.group;
    plan.parts = groups < wanted ? (wanted + groups - 1) / greater(1, groups) : 1;
    plan.capacity = greater(row_block, args.chars);
    const i64 scratch = round_up(plan.capacity * plan.window, panel_width) + plan.capacity * chunk;
    const i64 items = groups * plan.parts;
    parallel_for(items, work < serial_below ? items : 1, args.argmax ? convolve_items<true> : convolve_items<false>,
                 &plan, scratch * i64{sizeof(float)});
}

void char_cnn_backward(const CharCnnBackward& args) {
    i64 units = 0;
    bool filters = false;
    for (i64 i = 0; i < args.count; ++i) {
        units += panels_of(args.convolutions[i]);
        filters = filters || args.convolutions[i].dweight || args.convolutions[i].dbias;
    }
    const i64 size = args.chars * args.dim * i64{sizeof(float)};
    CharacterGradients context{args, nullptr, 0, 0};
    if (filters) parallel_for(units, 1, filter_units, &context.args, size);
    if (!args.dembedding) return;
    context.dchars = static_cast<float*>(shared_scratch(lesser(args.words, words_of_block) * size));
    const i64 columns = round_up(greater(16, args.dim / num_threads()), 16);
    for (; context.first < args.words; context.first += words_of_block) {
        context.words = lesser(words_of_block, args.words - context.first);
        parallel_for(context.words, words_at_once, character_gradients, &context);
        parallel_for(args.dim, columns, add_columns, &context);
    }
}

}  // namespace fastattn::FASTATTN_ISA
