#include "log_softmax.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// Values per block. The largest of each is known once the row's maximum is, so most blocks are not read again.
constexpr i64 block = 32;

// A value and its index as one number: the larger value has the larger key, and of equal ones the lower index. NaN is
// above all.
using Key = std::uint64_t;

FASTATTN_INLINE Key key_of(float value, i64 index) {
    value += 0.0f;  // -0 becomes 0
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    if (value != value)
        bits = ~0u;
    else
        bits = bits >> 31 ? ~bits : bits | 1u << 31;
    return static_cast<Key>(bits) << 32 | static_cast<std::uint32_t>(~index);
}

FASTATTN_INLINE float value_of(Key key) {
    const auto high = static_cast<std::uint32_t>(key >> 32);
    const std::uint32_t bits = high >> 31 ? high ^ 1u << 31 : ~high;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

FASTATTN_INLINE i64 index_of(Key key) { return ~static_cast<std::uint32_t>(key); }

// A heap whose first key is its least: `key` takes its place.
FASTATTN_INLINE void replace_least(Key* heap, i64 count, Key key) {
    i64 at = 0;
    for (i64 child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count) child += heap[child + 1] < heap[child];  // not a branch: nobody could predict it
        if (heap[child] >= key) break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = key;
}

// Largest first.
FASTATTN_INLINE void sort_heap(Key* heap, i64 count) {
    for (i64 last = count - 1; last > 0; --last) {
        const Key key = heap[last];
        heap[last] = heap[0];
        replace_least(heap, last, key);
    }
}

}  // namespace

void log_softmax_topk_forward(const LogSoftmaxTopkForward& args) {
    constexpr float inf = __builtin_inff();
    const i64 dim = args.dim, k = args.k, blocks = divide_up(dim, block);
    const auto one_row = [&](i64 row, float* maxima) {
        const float* x = args.x + row * args.ldx;
        for (i64 b = 0; b < blocks; ++b) {
            const float* from = x + b * block;
            maxima[b] =
                row_max(lesser(block, dim - b * block), [&](i64 i, i64 n) { return load_or(from + i, n, -inf); });
        }
        const float largest = row_max(blocks, [&](i64 i, i64 n) { return load_or(maxima + i, n, -inf); });
        const LogSum sum = log_sum_of(x, dim, largest);
        const auto y = [&](float value) { return value - sum.shift - sum.log_sum; };

        Key* const heap = reinterpret_cast<Key*>(args.indices + row * k);  // until it is sorted
        for (i64 i = 0; i < k; ++i) heap[i] = 0;                           // below the key of any value
        const i64* ids = args.ids ? args.ids + args.cu_ids[row] : nullptr;
        const i64* const end = args.ids ? args.ids + args.cu_ids[row + 1] : nullptr;
        const float* factors = args.ids ? args.factors + args.cu_ids[row] : nullptr;
        for (const i64* id = ids; id < end; ++id, ++factors) {
            const Key key = key_of(*factors == inf ? -inf : y(x[*id]) * *factors, *id);
            if (key > heap[0]) replace_least(heap, k, key);
        }
        float least = value_of(heap[0]);  // NaN at first, and below nothing
        for (i64 b = 0; b < blocks; ++b) {
            const float most = y(maxima[b]);
            i64 i = b * block;
            if (most < least || key_of(most, i) <= heap[0]) continue;
            for (const i64 until = lesser(dim, i + block); i < until; ++i) {
                const float value = y(x[i]);
                if (value < least) continue;
                const Key key = key_of(value, i);
                if (key <= heap[0]) continue;
                while (ids < end && *ids < i) ++ids;
                if (ids < end && *ids == i) continue;
                replace_least(heap, k, key);
                least = value_of(heap[0]);
            }
        }

        sort_heap(heap, k);
        for (i64 i = 0; i < k; ++i) {
            const Key key = heap[i];
            args.values[row * k + i] = value_of(key);
            args.indices[row * k + i] = index_of(key);
        }
    };
    parallel_for(
        args.rows, row_grain(dim),
        [&](i64 begin, i64 end, float* scratch) {
            for (i64 row = begin; row < end; ++row) one_row(row, scratch);
        },
        blocks);
}

}  // namespace fastattn::FASTATTN_ISA
