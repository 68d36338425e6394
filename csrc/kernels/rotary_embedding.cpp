#include "row.h"

namespace fastattn::FASTATTN_ISA {
namespace {

constexpr i64 turned_parts = 2;  // queries and keys

template <bool back>
FASTATTN_INLINE void turn(const RotaryEmbedding& args) {
    const i64 half = args.dim / 2;
    for_rows(args.tokens, args.parts * args.heads * args.dim, [&](i64 token) {
        const float* sine = args.table + args.position_ids[token] * args.ldt;
        const float* cosine = sine + half;
        float* y = args.y + token * args.parts * args.heads * args.dim;
        for (i64 part = 0; part < args.parts; ++part)
            for (i64 head = 0; head < args.heads; ++head, y += args.dim) {
                const float* x = args.x + token * args.token_stride + part * args.part_stride + head * args.head_stride;
                if (part >= turned_parts) {
                    if (x != y) map_floats(y, x, args.dim, [](auto v) { return v; });
                    continue;
                }
                for_floats(0, half, [&](auto at) __attribute__((always_inline)) {
                    const auto a = at(x), b = at(x + half), c = at(cosine);
                    const auto s = back ? -at(sine) : at(sine);
                    at.put(y, fma(a, c, -(b * s)));
                    at.put(y + half, fma(b, c, a * s));
                });
            }
    });
}

}  // namespace

void rotary_embedding_forward(const RotaryEmbeddingForward& args) { turn<false>(args); }
void rotary_embedding_backward(const RotaryEmbeddingBackward& args) { turn<true>(args); }

}  // namespace fastattn::FASTATTN_ISA
