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
        if (args.norm_weight) normalize_row(y, y, args.norm_weight, args.norm_bias, args.dim, args.eps);
    }
}

}  // namespace

void embedding_forward(const EmbeddingForward& args) {
    EmbeddingForward context = args;
    parallel_for(args.tokens, row_grain(args.dim), embedding_rows, &context);
}

}  // namespace fastattn::FASTATTN_ISA
