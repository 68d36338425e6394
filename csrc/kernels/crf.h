// Shared by crf and crf_viterbi.
#pragma once

#include "../kernels.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr float inf = __builtin_inff();

// The transitions in rows of whole vectors, -inf beyond the last tag.
FASTATTN_INLINE void pack_transitions(float* to, const Crf& args) {
    const i64 width = crf_width(args.num_tags);
    for (i64 i = 0; i < args.num_tags; ++i)
        for (i64 j = 0; j < width; j += W) {
            const i64 n = greater(0, lesser(W, args.num_tags - j));
            store(to + i * width + j, n ? load_or(args.transitions + i * args.ldt + j, n, -inf) : set1(-inf));
        }
}

// y = x + the emissions of a token; y and x have whole vectors.
FASTATTN_INLINE void add_emissions(float* y, const float* x, const float* emissions, i64 num_tags) {
    for_vectors(num_tags, [&](i64 j, i64 n) { store(y + j, load(x + j) + load_or(emissions + j, n, -inf)); });
}

// A sum of logarithms without overflow begins with the largest; -inf alone stays.
FASTATTN_INLINE float shift_of(float largest) { return largest == -inf ? 0.0f : largest; }
FASTATTN_INLINE vf shift_of(vf largest) { return select(less(set1(-inf), largest), largest, zero()); }

FASTATTN_INLINE float largest_of(const float* x, i64 num_tags) {
    return row_max(num_tags, [&](i64 j, i64 n) { return load_or(x + j, n, -inf); });
}

FASTATTN_INLINE void subtract(float* x, float shift, i64 num_tags) {
    for_vectors(num_tags, [&](i64 j, i64) { store(x + j, load(x + j) - set1(shift)); });
}

// Sequences per piece of a parallel loop.
FASTATTN_INLINE i64 crf_grain(const Crf& args, i64 work) {
    const i64 tokens = args.batch == 0 ? 0 : args.cu_seqlens[args.batch] / args.batch + 1;
    return greater(1, 32768 / greater(1, tokens * args.num_tags * args.num_tags * work));
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
