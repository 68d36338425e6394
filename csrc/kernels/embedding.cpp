#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void embed_tokens(const EmbeddingForward& args, i64 begin, i64 end) {
    const bool scales = args.scale != 1.0f;
    for (i64 token = begin; token < end; ++token) {
        float* y = args.y + token * args.dim;
        const float* word = args.weight + args.input_ids[token] * args.ldw;
        const float* type =
            args.token_type_ids ? args.token_type_weight + args.token_type_ids[token] * args.ldt : nullptr;
        const float* position =
            args.position_ids ? args.position_weight + args.position_ids[token] * args.ldp : nullptr;
        for_vectors(args.dim, [&](i64 i, i64 n) {
            vf sum = load_n(word + i, n);
            if (scales) sum = sum * set1(args.scale);
            if (type) sum = sum + load_n(type + i, n);
            if (position) sum = sum + load_n(position + i, n);
            store_n(y + i, sum, n);
        });
        const float* next = token + 1 < end ? args.weight + args.input_ids[token + 1] * args.ldw : y;
        if (args.norm_weight) normalize_row(y, y, args.norm_weight, args.norm_bias, args.dim, args.eps, next);
    }
}

// A thread has its own columns and takes all tokens in order, so the sums do not depend on the number of threads.
void add_columns(const EmbeddingBackward& args, i64 begin, i64 end) {
    for (i64 token = 0; token < args.tokens; ++token) {
        const i64 id = args.input_ids[token];
        if (id == args.padding_idx) continue;
        float* dweight = args.dweight + id * args.dim + begin;
        const float* dy = args.dy + token * args.lddy + begin;
        for_vectors(end - begin,
                    [&](i64 i, i64 n) { store_n(dweight + i, load_n(dweight + i, n) + load_n(dy + i, n), n); });
    }
}

}  // namespace

void embedding_forward(const EmbeddingForward& args) {
    parallel_for(args.tokens, row_grain(args.dim), [&](i64 begin, i64 end, float*) { embed_tokens(args, begin, end); });
}

void embedding_backward(const EmbeddingBackward& args) {
    const i64 columns = greater(row_grain(args.tokens), args.dim / num_threads() + 1);
    parallel_for(args.dim, round_up(columns, 16), [&](i64 begin, i64 end, float*) { add_columns(args, begin, end); });
}

}  // namespace fastattn::FASTATTN_ISA
