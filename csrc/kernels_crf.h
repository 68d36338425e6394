// The contract of crf and crf_viterbi, a part of kernels.h.
#pragma once

#include "kernels.h"

namespace fastattn {

// The score of a sequence's tags: start_transitions[the first], the emission of each tag, transitions[a tag, the next
// one], end_transitions[the last]. -inf forbids.
struct Crf {
    const float* emissions;          // [tokens, num_tags], row stride lde
    const float* transitions;        // [num_tags, num_tags], row stride ldt: from the tag of a row to that of a column
    const float* start_transitions;  // [num_tags]
    const float* end_transitions;    // [num_tags]
    const std::int32_t* cu_seqlens;  // [batch + 1]
    i64 batch, num_tags, lde, ldt;
};

struct CrfForward : Crf {
    float* log_likelihood;  // [batch]
    float* alpha;           // [tokens, num_tags]: logarithms of the sums over all beginnings; the largest of a row is 0
    const i64* tags;        // [tokens]
};

// Nothing comes from a sequence whose log-likelihood is -inf, and NaN from one where it is NaN.
struct CrfBackward : Crf {
    float* demissions;             // [tokens, num_tags]
    float* dtransitions;           // [num_tags, num_tags]
    float* dstart_transitions;     // [num_tags]
    float* dend_transitions;       // [num_tags]
    float* chunk_sums;             // [crf_chunks(batch, num_tags), crf_sums(num_tags)], written
    const float* dlog_likelihood;  // [batch]
    const float* log_likelihood;   // [batch]
    const float* alpha;            // [tokens, num_tags]
    const i64* tags;               // [tokens]
};

// The n best tag sequences, the best first; of equal ones the one whose last tag is lower, then the last but one.
struct CrfViterbiForward : Crf {
    i64* tags;      // [n, tokens]; -1: fewer than n are allowed
    float* scores;  // [batch, n]
    float* back;    // [tokens, n, num_tags], written: the tag before, times n, plus its rank
    i64 tokens, n;  // num_tags * n <= 2^24
};

// Rows of sums, and of transitions in a kernel, are whole vectors of every instruction set.
constexpr i64 crf_width(i64 num_tags) { return (num_tags + 15) / 16 * 16; }
constexpr i64 crf_sums(i64 num_tags) { return (num_tags + 2) * crf_width(num_tags); }

// Gradients of transitions are summed over chunks of sequences, then over the chunks.
constexpr i64 crf_chunks(i64 batch, i64 num_tags) {
    const i64 room = (i64{1} << 22) / (crf_sums(num_tags) + 1) + 1, most = room < 64 ? room : 64;
    return batch < most ? batch : most;
}

}  // namespace fastattn
