#include "crf.h"

#include "../simd/math.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// The largest alpha[i] + transitions[i][j] of every column j of a vector.
FASTATTN_INLINE vf largest_step(const float* alpha, const float* transitions, i64 num_tags, i64 width) {
    vf m0 = set1(-inf), m1 = m0;
    i64 i = 0;
    for (; i + 2 <= num_tags; i += 2) {
        m0 = max(set1(alpha[i]) + load(transitions + i * width), m0);
        m1 = max(set1(alpha[i + 1]) + load(transitions + (i + 1) * width), m1);
    }
    if (i < num_tags) m0 = max(set1(alpha[i]) + load(transitions + i * width), m0);
    return max(m0, m1);
}

// next[j] = log(sum over i of e^(alpha[i] + transitions[i][j]))
FASTATTN_INLINE void step(float* next, float* sums, const float* alpha, const float* transitions, i64 num_tags) {
    const i64 width = crf_width(num_tags);
    for (i64 j = 0; j < num_tags; j += W) {
        const vf shift = shift_of(largest_step(alpha, transitions + j, num_tags, width));
        vf sum = zero();
        for (i64 i = 0; i < num_tags; ++i) sum = sum + exp(set1(alpha[i]) + load(transitions + i * width + j) - shift);
        store(sums + j, sum);
        store(next + j, shift);
    }
    for (i64 j = 0; j < num_tags; ++j) next[j] += __builtin_logf(sums[j]);
}

double score_of(const CrfForward& args, i64 begin, i64 end) {
    double score = args.start_transitions[args.tags[begin]];
    for (i64 t = begin; t < end; ++t) {
        score += args.emissions[t * args.lde + args.tags[t]];
        if (t > begin) score += args.transitions[args.tags[t - 1] * args.ldt + args.tags[t]];
    }
    return score + args.end_transitions[args.tags[end - 1]];
}

// The logarithm of the sum over all paths. `rows` is three rows of whole vectors.
double log_sum_of_paths(const CrfForward& args, i64 begin, i64 end, const float* transitions, float* rows) {
    const i64 num_tags = args.num_tags, width = crf_width(num_tags);
    float *alpha = rows, *next = rows + width, *sums = next + width;
    double total = 0.0;
    for (i64 t = begin; t < end; ++t) {
        if (t == begin)
            for_vectors(num_tags, [&](i64 j, i64 n) { store(next + j, load_n(args.start_transitions + j, n)); });
        else
            step(next, sums, alpha, transitions, num_tags);
        add_emissions(alpha, next, args.emissions + t * args.lde, num_tags);
        const float shift = shift_of(largest_of(alpha, num_tags));
        subtract(alpha, shift, num_tags);
        total += shift;
        float* kept = args.alpha + t * num_tags;
        for_vectors(num_tags, [&](i64 j, i64 n) { store_n(kept + j, load(alpha + j), n); });
    }
    add_emissions(next, alpha, args.end_transitions, num_tags);
    const float shift = shift_of(largest_of(next, num_tags));
    const float sum = row_sum(num_tags, [&](i64 j, i64 n) { return exp(load_or(next + j, n, -inf) - set1(shift)); });
    return total + static_cast<double>(shift) + static_cast<double>(__builtin_logf(sum));
}

// The rows that the gradients of one chunk are added to.
struct Sums {
    float *transitions, *start, *end;
};

void add_nothing_known(const CrfBackward& args, i64 begin, i64 end, const Sums& sums) {
    const i64 num_tags = args.num_tags;
    const vf nan = set1(__builtin_nanf(""));
    const auto spoil = [&](float* row) { for_vectors(num_tags, [&](i64 j, i64 n) { store_n(row + j, nan, n); }); };
    for (i64 t = begin; t < end; ++t) spoil(args.demissions + t * num_tags);
    spoil(sums.start);
    spoil(sums.end);
    for (i64 i = 0; end - begin > 1 && i < num_tags; ++i) spoil(sums.transitions + i * crf_width(num_tags));
}

// The probability of each tag of the last token, then, going back, that of each pair of neighbours: their part of the
// sum in a step, times the probability of the later one. `p` is a row; `column` and `before` are W wide.
void add_gradients(const CrfBackward& args, i64 begin, i64 end, float scale, const float* transitions, const Sums& sums,
                   float* p, float* column, float* before) {
    const i64 num_tags = args.num_tags, width = crf_width(num_tags);
    const vf g = set1(scale);
    const auto subtract_p = [&](float* from) {
        for_vectors(num_tags, [&](i64 j, i64) { store(from + j, load(from + j) - g * load(p + j)); });
    };
    const float* last = args.alpha + (end - 1) * num_tags;
    const auto at_end = [&](i64 j, i64 n) {
        return load_or(last + j, n, -inf) + load_or(args.end_transitions + j, n, -inf);
    };
    const vf shift = set1(row_max(num_tags, at_end));
    const float sum = row_sum(num_tags, [&](i64 j, i64 n) { return exp(at_end(j, n) - shift); });
    for_vectors(num_tags, [&](i64 j, i64 n) { store(p + j, exp(at_end(j, n) - shift) / set1(sum)); });
    subtract_p(sums.end);
    sums.end[args.tags[end - 1]] += scale;
    for (i64 t = end - 1;; --t) {
        float* demissions = args.demissions + t * num_tags;
        for_vectors(num_tags, [&](i64 j, i64 n) { store_n(demissions + j, zero() - g * load(p + j), n); });
        demissions[args.tags[t]] += scale;
        if (t == begin) break;
        const float* alpha = args.alpha + (t - 1) * num_tags;
        for (i64 j = 0; j < num_tags; j += W) {
            const float* steps = transitions + j;
            const vf shift = shift_of(largest_step(alpha, steps, num_tags, width));
            vf total = zero();
            for (i64 i = 0; i < num_tags; ++i) {
                const vf part = exp(set1(alpha[i]) + load(steps + i * width) - shift);
                store(column + i * W, part);
                total = total + part;
            }
            const vf share = select(less(zero(), total), load(p + j) / total, zero());
            for (i64 i = 0; i < num_tags; ++i) {
                const vf pair = load(column + i * W) * share;
                float* sum = sums.transitions + i * width + j;
                store(sum, load(sum) - g * pair);
                store(before + i * W, j == 0 ? pair : load(before + i * W) + pair);
            }
        }
        for (i64 i = 0; i < num_tags; ++i) p[i] = reduce_add(load(before + i * W));
        sums.transitions[args.tags[t - 1] * width + args.tags[t]] += scale;
    }
    subtract_p(sums.start);
    sums.start[args.tags[begin]] += scale;
}

}  // namespace

void crf_forward(const CrfForward& args) {
    const i64 width = crf_width(args.num_tags), size = args.num_tags * width;
    const auto body = [&](i64 first, i64 last, float* scratch) {
        pack_transitions(scratch, args);
        for (i64 b = first; b < last; ++b) {
            const i64 begin = args.cu_seqlens[b], end = args.cu_seqlens[b + 1];
            if (begin == end) {
                args.log_likelihood[b] = 0.0f;
                continue;
            }
            const double sum = log_sum_of_paths(args, begin, end, scratch, scratch + size);
            const double score = score_of(args, begin, end);
            const bool none = sum == -__builtin_inf() || (score == -__builtin_inf() && sum == sum);
            const double difference = score > sum ? 0.0 : score - sum;  // only rounding makes a probability above 1
            args.log_likelihood[b] = none ? -inf : static_cast<float>(difference);
        }
    };
    parallel_for(args.batch, crf_grain(args, 4), body, size + 3 * width);
}

void crf_backward(const CrfBackward& args) {
    const i64 num_tags = args.num_tags, width = crf_width(num_tags), size = num_tags * width;
    const i64 chunks = crf_chunks(args.batch, num_tags), sums_size = crf_sums(num_tags);
    const auto body = [&](i64 first, i64 last, float* scratch) {
        pack_transitions(scratch, args);
        float *p = scratch + size, *column = p + width, *before = column + num_tags * W;
        for (i64 chunk = first; chunk < last; ++chunk) {
            float* own = args.chunk_sums + chunk * sums_size;
            const Sums sums{own, own + size, own + size + width};
            for_vectors(sums_size, [&](i64 i, i64 n) { store_n(own + i, zero(), n); });
            for (i64 b = args.batch * chunk / chunks; b < args.batch * (chunk + 1) / chunks; ++b) {
                const i64 begin = args.cu_seqlens[b], end = args.cu_seqlens[b + 1];
                const float likelihood = args.log_likelihood[b];
                if (begin == end) continue;
                if (likelihood == -inf) {
                    for_vectors((end - begin) * num_tags,
                                [&](i64 i, i64 n) { store_n(args.demissions + begin * num_tags + i, zero(), n); });
                } else if (likelihood != likelihood) {
                    add_nothing_known(args, begin, end, sums);
                } else {
                    add_gradients(args, begin, end, args.dlog_likelihood[b], scratch, sums, p, column, before);
                }
            }
        }
    };
    parallel_for(chunks, 1, body, size + width + 2 * num_tags * W);
    const float* sums = args.chunk_sums;
    for (i64 i = 0; i < num_tags; ++i)
        add_block_sums(args.dtransitions + i * num_tags, sums + i * width, sums_size, chunks, num_tags, false);
    add_block_sums(args.dstart_transitions, sums + size, sums_size, chunks, num_tags, false);
    add_block_sums(args.dend_transitions, sums + size + width, sums_size, chunks, num_tags, false);
}

}  // namespace fastattn::FASTATTN_ISA
