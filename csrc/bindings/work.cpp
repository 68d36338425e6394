#include "work.h"

#include <algorithm>
#include <initializer_list>

namespace fastattn::bindings {
namespace {

constexpr double floats = sizeof(float);

Work::Axis has(bool given, const char* name) { return {given ? name : nullptr, Work::flag}; }

Work::Axis name_of(Activation activation) {
    static constexpr const char* names[] = {nullptr, "relu", "sigmoid", "gelu", "gelu_tanh", "silu", "tanh"};
    return {names[static_cast<int>(activation)], Work::flag};
}

Work::Axis name_of(Pooling mode) {
    static constexpr const char* names[] = {"mean", "cls", "max", "last", "mean_sqrt_len", "weighted_mean"};
    return {names[static_cast<int>(mode)], Work::flag};
}

Work made(std::initializer_list<Work::Axis> axes, double flops, double moved) {
    Work work;
    Work::Axis* to = work.axes;
    for (const Work::Axis& axis : axes)
        if (axis.name) *to++ = axis;
    work.flops = flops;
    work.bytes = floats * moved;
    return work;
}

// So many arrays of rows are read or written.
Work of_rows(i64 rows, i64 dim, i64 arrays, Work::Axis what = {}, Work::Axis more = {}) {
    return made({{"rows", rows}, {"dim", dim}, what, more}, 0, double(arrays) * double(rows) * double(dim));
}

Work work(const RowsForward& a) { return of_rows(a.rows, a.dim, 2); }
Work work(const RowsBackward& a) { return of_rows(a.rows, a.dim, 3); }
Work work(const ActivationForward& a) { return of_rows(a.rows, a.dim, 2, name_of(a.activation)); }
Work work(const ActivationBackward& a) { return of_rows(a.rows, a.dim, 3, name_of(a.activation)); }

Work work(const GatedActivationForward& a) { return of_rows(a.rows, a.dim, 3, name_of(a.activation)); }
Work work(const GatedActivationBackward& a) { return of_rows(a.rows, a.dim, 5, name_of(a.activation)); }

// Of queries and keys; other parts are copied, if the result is not in place.
Work work(const RotaryEmbedding& a) {
    const i64 moved = a.x == a.y ? 2 : a.parts;
    return made({{"tokens", a.tokens}, {"parts", a.parts}, {"heads", a.heads}, {"head_dim", a.dim}}, 0,
                2 * double(a.tokens) * double(moved) * double(a.heads) * double(a.dim));
}

Work::Axis storage_of(const WeightView& weight) {
    static constexpr const char* names[] = {nullptr, "bfloat16", "int8"};
    return {weight.panels ? names[static_cast<int>(weight.element)] : "unpacked", Work::flag};
}

// Numbers of a weight, in floats.
double floats_of(Element element, double count) {
    return element == Element::int8 ? count / 4 : element == Element::bfloat16 ? count / 2 : count;
}

Work work(const LinearForward& a) {
    const double m = double(a.m), n = double(a.n), k = double(a.k);
    return made({{"m", a.m},
                 {"k", a.k},
                 {"n", a.n},
                 name_of(a.activation),
                 has(a.residual, "residual"),
                 has(a.pre_activation, "pre_activation"),
                 storage_of(a.weight)},
                2 * m * n * k,
                m * k + floats_of(a.weight.element, n * k) + m * n * (1 + !!a.residual + !!a.pre_activation));
}

Work work(const LinearBackward& a) {
    const double m = double(a.m), n = double(a.n), k = double(a.k);
    return made({{"m", a.m},
                 {"k", a.k},
                 {"n", a.n},
                 name_of(a.activation),
                 has(a.dx, "dx"),
                 has(a.dweight, "dweight"),
                 has(a.dbias, "dbias")},
                2 * m * n * k * (!!a.dx + !!a.dweight),
                (m * k + n * k) * (!!a.dx + !!a.dweight) + m * n * (1 + !!a.pre_activation));
}

// The keys that queries see, over all sequences.
double pairs(const ScaledDotProductAttention& a) {
    double sum = 0;
    for (i64 b = 0; b < a.batch; ++b) {
        const i64 queries = a.cu_seqlens_q ? a.cu_seqlens_q[b + 1] - a.cu_seqlens_q[b] : a.seqlen_q;
        const i64 keys = a.cu_seqlens_k ? a.cu_seqlens_k[b + 1] - a.cu_seqlens_k[b] : a.seqlen_k;
        if (a.left == a.no_limit && a.right == a.no_limit) {
            sum += double(queries) * double(keys);
            continue;
        }
        const i64 offset = a.top_left ? 0 : keys - queries;
        for (i64 i = offset; i < offset + queries; ++i)
            sum += double(std::clamp<i64>(i + a.right + 1, 0, keys) - std::clamp<i64>(i - a.left, 0, keys));
    }
    return sum;
}

Work of_attention(const ScaledDotProductAttention& a, i64 products, i64 arrays, double more = 0) {
    const double rows_k = double(a.cu_seqlens_k ? a.cu_seqlens_k[a.batch] : a.batch * a.seqlen_k);
    const double width = double(a.heads) * double(a.head_dim);
    return made({{"batch", a.batch},
                 {"heads", a.heads},
                 {"dim", a.head_dim},
                 {"q", a.seqlen_q},
                 {"k", a.seqlen_k},
                 {a.total_q == a.batch * a.seqlen_q ? nullptr : "tokens", a.total_q},
                 has(a.right == 0, "causal"),
                 has(a.left < a.no_limit || (a.right > 0 && a.right < a.no_limit), "window"),
                 has(a.position_bias != nullptr, "bias"),
                 has(a.mask_kind != MaskKind::none, "mask")},
                2 * double(products) * width * pairs(a), double(arrays) * width * (double(a.total_q) + rows_k) + more);
}

Work work(const ScaledDotProductAttentionForward& a) {
    const double probabilities = double(a.batch) * double(a.heads) * double(a.seqlen_q) * double(a.seqlen_k);
    return of_attention(a, 2, 2, a.attn_weights ? probabilities : 0);
}

Work work(const ScaledDotProductAttentionBackward& a) { return of_attention(a, 5, 4); }

Work work(const LayerNormForward& a) { return of_rows(a.rows, a.dim, 2 + !!a.residual, has(a.residual, "residual")); }

Work work(const LayerNormBackward& a) {
    return of_rows(a.rows, a.dim, 2 + !!a.residual + !!a.dx + !!a.dresidual, has(a.residual, "residual"));
}

Work work(const LogSoftmaxTopkForward& a) {
    return made({{"rows", a.rows}, {"dim", a.dim}, {"k", a.k}, has(a.ids, "ids")}, 0,
                double(a.rows) * double(a.dim + 3 * a.k));
}

Work work(const EmbeddingForward& a) {
    const int tables = 1 + !!a.token_type_ids + !!a.position_ids;
    return made({{"tokens", a.tokens}, {"dim", a.dim}, {"tables", tables}, has(a.norm_weight, "norm")}, 0,
                double(1 + tables) * double(a.tokens) * double(a.dim));
}

Work work(const EmbeddingBackward& a) {
    return made({{"tokens", a.tokens}, {"dim", a.dim}}, 0, 3 * double(a.tokens) * double(a.dim));
}

Work work(const ScatterRowsForward& a) {
    return made({{"rows", a.count}, {"dim", a.dim}}, 0, 2 * double(a.count) * double(a.dim));
}

// The kernel looks at one window of the run of padding that ends a word.
Work work(const CharCnnForward& a) {
    double weights = 0, products = 0;
    for (i64 c = 0; c < a.count; ++c) {
        const CharConvolution& convolution = a.convolutions[c];
        const double size = double(convolution.width) * double(a.dim) * double(convolution.filters);
        weights += size;
        for (i64 word = 0; word < a.words; ++word) {
            const i64* const ids = a.char_ids + word * a.chars;
            i64 run = a.chars - 1;
            while (run > 0 && ids[run - 1] == ids[a.chars - 1]) --run;
            products += size * double(std::min(run, a.chars - convolution.width) + 1);
        }
    }
    return made({{"words", a.words}, {"chars", a.chars}, {"dim", a.dim}, {"filters", a.filters}}, 2 * products,
                weights + double(a.words) * double(a.filters + 2 * a.chars));
}

Work work(const CharCnnBackward& a) {
    double weights = 0;
    for (i64 c = 0; c < a.count; ++c)
        weights += double(a.convolutions[c].width) * double(a.dim) * double(a.convolutions[c].filters);
    return made({{"words", a.words}, {"chars", a.chars}, {"dim", a.dim}, {"filters", a.filters}},
                4 * weights * double(a.words), 3 * weights + double(a.words) * double(3 * a.filters + 2 * a.chars));
}

Work work(const HighwayForward& a) {
    const double m = double(a.linear.m), k = double(a.linear.k);
    return made({{"rows", a.linear.m}, {"dim", a.linear.k}, has(!a.linear.weight.panels, "unpacked")}, 4 * m * k * k,
                2 * k * k + m * k * (a.linear.y ? 4 : 2));
}

Work work(const HighwayBackward& a) {
    const double m = double(a.linear.m), k = double(a.linear.k);
    const int gradients = !!a.linear.dx + !!a.linear.dweight;
    return made({{"rows", a.linear.m}, {"dim", a.linear.k}}, 4 * m * k * k * gradients,
                2 * k * k * gradients + m * k * (3 + gradients));
}

Work work(const PoolingForward& a) {
    const double rows = double(a.batch + a.cu_seqlens[a.batch]);
    return made({{"batch", a.batch}, {"tokens", a.cu_seqlens[a.batch]}, {"dim", a.dim}, name_of(a.mode)}, 0,
                rows * double(a.dim));
}

Work work(const PoolingBackward& a) {
    const double rows = double(a.batch + a.cu_seqlens[a.batch]);
    return made({{"batch", a.batch}, {"tokens", a.cu_seqlens[a.batch]}, {"dim", a.dim}, name_of(a.mode)}, 0,
                rows * double(a.dim));
}

Work work(const CrossEntropyForward& a) {
    return made({{"rows", a.rows}, {"classes", a.classes}}, 0, double(a.rows) * double(a.classes));
}

Work work(const CrossEntropyBackward& a) {
    return made({{"rows", a.rows}, {"classes", a.classes}}, 0, 2 * double(a.rows) * double(a.classes));
}

// So many arrays of the size of the emissions are read or written.
Work of_paths(const Crf& a, i64 arrays, Work::Axis n = {}) {
    const i64 tokens = a.cu_seqlens[a.batch];
    return made({{"batch", a.batch}, {"tokens", tokens}, {"tags", a.num_tags}, n}, 0,
                double(arrays) * double(tokens) * double(a.num_tags));
}

Work work(const CrfForward& a) { return of_paths(a, 2); }
Work work(const CrfBackward& a) { return of_paths(a, 2); }
Work work(const CrfViterbiForward& a) { return of_paths(a, 1 + a.n, {"n", a.n}); }

Work of_layer(const Recurrent& a, i64 passes, bool projection) {
    const i64 weights = a.gates * a.hidden * (a.input + a.width) + (projection ? a.hidden * a.width : 0);
    const double tokens = double(a.sequences.tokens), all = double(a.directions) * double(weights);
    return made({{"batch", a.sequences.batch},
                 {"tokens", a.sequences.tokens},
                 {"steps", a.sequences.steps},
                 {"input", a.input},
                 {"hidden", a.hidden},
                 {"width", projection ? a.width : a.hidden},
                 {"directions", a.directions}},
                2 * double(passes) * tokens * all,
                double(passes) * (all + tokens * double(a.input + a.directions * a.width)));
}

Work work(const LstmForward& a) { return of_layer(a, 1, a.direction[0].hr_panels); }
Work work(const LstmBackward& a) { return of_layer(a, 2, a.direction[0].hr_transposed_panels); }
Work work(const GruForward& a) { return of_layer(a, 1, false); }
Work work(const GruBackward& a) { return of_layer(a, 2, false); }

Work work(const DropoutForward& a) { return of_rows(a.rows, a.dim, 2 + !!a.residual, has(a.residual, "residual")); }
Work work(const DropoutBackward& a) { return of_rows(a.rows, a.dim, 2); }

Work work(const AdamwForward& a) { return made({{"count", a.count}}, 0, 7 * double(a.count)); }

Work work(const SgdForward& a) {
    return made({{"count", a.count}, has(a.momentum_buffer, "momentum")}, 0,
                (a.momentum_buffer ? 5 : 3) * double(a.count));
}

Work work(const GradientNormForward& a) {
    i64 count = 0;
    for (i64 i = 0; i < a.count; ++i) count += a.pieces[i].count;
    return made({{"count", count}}, 0, double(count));
}

}  // namespace

Work work_of(AnyKernel kernel, const void* args) {
    // Never destroyed: threads outlive the end of main.
    static const auto& tables = *new std::vector<const KernelTable*>(kernel_tables());
    for (const KernelTable* const table : tables) {
#define FASTATTN_KERNEL(name, Args)                           \
    if (kernel == reinterpret_cast<AnyKernel>(table->name)) { \
        Work known = work(*static_cast<const Args*>(args));   \
        known.kernel = #name;                                 \
        return known;                                         \
    }
#include "../kernels.inc"
#undef FASTATTN_KERNEL
    }
    return {};
}

}  // namespace fastattn::bindings
