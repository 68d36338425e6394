// Dropout without a mask: whether element (row, col) of an array is kept is a function of seed, row and col.
#pragma once

#include "../simd/simd.h"

namespace fastattn::FASTATTN_ISA {
namespace {

// W integers; + * ^ & >> are the compiler's, on every instruction set.
typedef std::uint32_t vu __attribute__((vector_size(4 * W)));
typedef std::int32_t vi __attribute__((vector_size(4 * W)));

struct DropoutRow {
    std::uint32_t key0, key1;
    std::int32_t dropped;  // of 2^24
    float scale;
};

// Mixes the row's number into the seed by splitmix64 (Steele, Lea and Flood 2014).
FASTATTN_INLINE DropoutRow dropout_row(const Dropout& dropout, i64 row) {
    std::uint64_t z = dropout.seed + 0x9E3779B97F4A7C15u * (static_cast<std::uint64_t>(row) + 1);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return {static_cast<std::uint32_t>(z), static_cast<std::uint32_t>(z >> 32),
            static_cast<std::int32_t>(dropout.p * 16777216.0 + 0.5), static_cast<float>(1.0 / (1.0 - dropout.p))};
}

// All bits in the lanes of columns col, col + 1, ... that are kept: the column's number is mixed into the row's keys,
// and 24 bits of the result are compared with p.
FASTATTN_INLINE vu kept(const DropoutRow& row, i64 col) {
    constexpr std::uint32_t step = 0x9E3779B9u;
    vu x;
    for (int i = 0; i < W; ++i) x[i] = static_cast<std::uint32_t>(i) * step;
    x += static_cast<std::uint32_t>(col) * step + row.key0;
    x = (x ^ (x >> 16)) * 0x21F0AAADu;
    x ^= row.key1;
    x = (x ^ (x >> 15)) * 0xD35A2D97u;
    x ^= x >> 15;
    return (vu)((vi)(x >> 8) >= row.dropped);
}

// x / (1 - p) in the columns col, col + 1, ... that are kept, 0 in the others, even for NaN. V is vf or vf2.
template <typename V>
FASTATTN_INLINE V drop(const DropoutRow& row, V x, i64 col) {
    if constexpr (sizeof(V) == sizeof(vf))
        return (vf)((vu)(x * set1(row.scale)) & kept(row, col));
    else
        return {drop(row, x.a, col), drop(row, x.b, col + W)};
}

}  // namespace
}  // namespace fastattn::FASTATTN_ISA
