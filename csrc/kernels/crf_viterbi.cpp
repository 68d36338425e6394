#include "crf.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Whether there is neither NaN nor +inf.
FASTATTN_INLINE bool are_scores(const float* x, i64 num_tags) {
    return row_max(num_tags, [&](i64 j, i64 n) {
               return select(less(load_or(x + j, n, 0.0f), set1(inf)), zero(), set1(1.0f));
           }) <= 0.0f;
}

FASTATTN_INLINE bool any(vm m) { return reduce_max(select(m, set1(1.0f), zero())) > 0.0f; }

// The n best ways into each tag j, in descending order: next [n, width] from those into the tags before, best [n,
// width]. A way is the tag before, times n, plus its rank there; -1 if there are fewer.
void step(float* next, float* ways, const float* best, const float* transitions, i64 num_tags, i64 n) {
    const i64 width = crf_width(num_tags);
    for (i64 j = 0; j < num_tags; j += W) {
        const i64 lanes = lesser(W, num_tags - j);
        for (i64 rank = 0; rank < n; ++rank) {
            store(next + rank * width + j, set1(-inf));
            store_n(ways + rank * num_tags + j, set1(-1.0f), lanes);
        }
        for (i64 i = 0; i < num_tags; ++i)
            for (i64 before = 0; before < n; ++before) {
                const float from = best[before * width + i];
                if (from == -inf) break;
                const vf candidate = set1(from) + load(transitions + i * width + j);
                if (n > 1 && !any(less(load(next + (n - 1) * width + j), candidate))) break;  // those behind are lower
                vf score = candidate, way = set1(static_cast<float>(i * n + before));
                for (i64 rank = 0; rank < n; ++rank) {  // what it surpasses moves down
                    float *to = next + rank * width + j, *code = ways + rank * num_tags + j;
                    const vf there = load(to), way_there = load_n(code, lanes);
                    const vm better = less(there, candidate);
                    store(to, select(better, score, there));
                    store_n(code, select(better, way, way_there), lanes);
                    score = select(better, there, score);
                    way = select(better, way_there, way);
                }
            }
    }
}

// The n best ends, scores [n] and ways [n].
void rank_ends(float* scores, float* ways, const float* best, const float* end, i64 num_tags, i64 n) {
    for (i64 rank = 0; rank < n; ++rank) {
        scores[rank] = -inf;
        ways[rank] = -1.0f;
    }
    for (i64 j = 0; j < num_tags; ++j)
        for (i64 before = 0; before < n; ++before) {
            const float candidate = best[before * crf_width(num_tags) + j] + end[j];
            i64 rank = n;
            while (rank > 0 && scores[rank - 1] < candidate) --rank;
            if (rank == n) break;
            for (i64 i = n - 1; i > rank; --i) {
                scores[i] = scores[i - 1];
                ways[i] = ways[i - 1];
            }
            scores[rank] = candidate;
            ways[rank] = static_cast<float>(j * n + before);
        }
}

// The tags of the best paths, and their scores; false where a score is NaN or +inf. `rows` has room for two rows for
// each rank.
bool find_paths(const CrfViterbiForward& args, i64 begin, i64 end, const float* transitions, float* scores,
                float* rows) {
    const i64 num_tags = args.num_tags, n = args.n, width = crf_width(num_tags);
    float *best = rows, *next = rows + n * width;
    double total = 0.0;
    for (i64 t = begin; t < end; ++t) {
        const float* emissions = args.emissions + t * args.lde;
        if (!are_scores(emissions, num_tags)) return false;
        if (t == begin) {
            for (i64 i = 0; i < n * width; ++i) next[i] = -inf;
            for_vectors(num_tags,
                        [&](i64 j, i64 count) { store_n(next + j, load_n(args.start_transitions + j, count), count); });
        } else {
            step(next, args.back + t * n * num_tags, best, transitions, num_tags, n);
        }
        for (i64 rank = 0; rank < n; ++rank)
            add_emissions(best + rank * width, next + rank * width, emissions, num_tags);
        const float largest = largest_of(best, num_tags);
        if (largest == inf) return false;
        for (i64 rank = 0; rank < n; ++rank) subtract(best + rank * width, shift_of(largest), num_tags);
        total += shift_of(largest);
    }
    float* ways = next + n;
    rank_ends(next, ways, best, args.end_transitions, num_tags, n);
    if (next[0] == inf) return false;
    for (i64 rank = 0; rank < n; ++rank) {
        i64* tags = args.tags + rank * args.tokens;
        i64 way = static_cast<i64>(ways[rank]);
        scores[rank] = static_cast<float>(total + static_cast<double>(next[rank]));
        for (i64 t = end - 1; t >= begin; --t) {
            tags[t] = way < 0 ? -1 : way / n;
            if (way >= 0 && t > begin) way = static_cast<i64>(args.back[(t * n + way % n) * num_tags + way / n]);
        }
    }
    return true;
}

}  // namespace

void crf_viterbi_forward(const CrfViterbiForward& args) {
    const i64 num_tags = args.num_tags, n = args.n, width = crf_width(num_tags), size = num_tags * width;
    const bool ends = are_scores(args.start_transitions, num_tags) && are_scores(args.end_transitions, num_tags);
    bool steps = true;
    for (i64 i = 0; i < num_tags; ++i) steps = steps && are_scores(args.transitions + i * args.ldt, num_tags);
    const auto body = [&](i64 first, i64 last, float* scratch) {
        pack_transitions(scratch, args);
        for (i64 b = first; b < last; ++b) {
            const i64 begin = args.cu_seqlens[b], end = args.cu_seqlens[b + 1];
            float* scores = args.scores + b * n;
            if (begin == end) {
                for (i64 rank = 0; rank < n; ++rank) scores[rank] = rank ? -inf : 0.0f;
                continue;
            }
            const bool known = ends && (steps || end - begin == 1);
            if (known && find_paths(args, begin, end, scratch, scores, scratch + size)) continue;
            for (i64 rank = 0; rank < n; ++rank) {
                scores[rank] = __builtin_nanf("");
                for (i64 t = begin; t < end; ++t) args.tags[rank * args.tokens + t] = -1;
            }
        }
    };
    parallel_for(args.batch, crf_grain(args, n * n), body, size + 2 * n * width);
}

}  // namespace fastattn::FASTATTN_ISA
