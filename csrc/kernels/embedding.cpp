#include "../parallel.h"
#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

void embedding_rows(void* context, i64 begin, i64 end, void*) {
    const EmbeddingForward& args = *static_cast<EmbeddingForward*>(context);
    for (i64 token = begin; token < end; ++token) {
        float* y = args.y + token * args.dim;
        const float* word = args.weight + args.input_ids[token] * args.ldw;
        const float* type =
            args.token_type_ids ? args.token_type_weight + args.token_type_ids[token] * args.ldt : nullptr;
        const float* position =
            args.position_ids ? args.position_weight + args.position_ids[token] * args.ldp : nullptr;
        for_vectors(args.dim, [&](i64 i, i64 n) {
            vf sum = load_n(word + i, n);
            if (type) sum = sum + load_n(type + i, n);
            if (position) sum = sum + load_n(position + i, n);
            store_n(y + i, sum, n);
        });
        const float* next = token + 1 < end ? args.weight + args.input_ids[token + 1] * args.ldw : y;
        if (args.norm_weight) normalize_row(y, y, args.norm_weight, args.norm_bias, args.dim, args.eps, next);
    }
}

// A thread has columns of its own, and takes all tokens in order: any number of threads gives the same sums.
void embedding_backward_columns(void* context, i64 begin, i64 end, void*) {
    const EmbeddingBackward& args = *static_cast<EmbeddingBackward*>(context);
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
    EmbeddingForward context = args;
    parallel_for(args.tokens, row_grain(args.dim), embedding_rows, &context);
}

void embedding_backward(const EmbeddingBackward& args) {
    EmbeddingBackward context = args;
    const i64 columns = greater(row_grain(args.tokens), args.dim / num_threads() + 1);
    parallel_for(args.dim, round_up(columns, 16), embedding_backward_columns, &context);
}

}  // namespace fastattn::FASTATTN_ISA
