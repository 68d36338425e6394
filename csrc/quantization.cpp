// Weights of fewer bits: bfloat16, and bytes with a scale for each row.
//
// A row's scale is the smallest with which no product of the instructions saturates, whatever the activations are.
// Where there is no instruction for it, four products of an unsigned and a signed byte are added in 16 bits (simd.h:
// dot_pairs): at most 128 * 255. So the absolute values of the four numbers that meet in these 16 bits, a *lane*, sum
// to at most 128.
#include <algorithm>
#include <atomic>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "packing.h"
#include "parallel.h"

namespace fastattn {
namespace {

constexpr i64 together = 8;  // columns, in two lanes: 0, 1, 4, 5 and 2, 3, 6, 7
constexpr int most_of_lane = 128, most_of_byte = 127;

i64 lane_of(i64 column) { return column / together * 2 + column % 4 / 2; }

// The number for a float, with the inverse of its row's scale. Adding 1.5 * 2^23 leaves no room for a fraction.
float nearest(float weight, float inverse) { return weight * inverse + 12582912.0f - 12582912.0f; }

std::uint32_t bits_of(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
float float_of(std::uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Whether the row's numbers fit, by its widest float and by those of the lanes that may be too full, four each.
bool fits(float scale, float widest, const float* lanes, i64 count) {
    const float inverse = 1.0f / scale;
    if (nearest(widest, inverse) > most_of_byte) return false;
    for (i64 i = 0; i < count; i += 4)
        if (nearest(lanes[i], inverse) + nearest(lanes[i + 1], inverse) + nearest(lanes[i + 2], inverse) +
                nearest(lanes[i + 3], inverse) >
            most_of_lane)
            return false;
    return true;
}

i64 scratch_of_scale(i64 k) { return 5 * bytes_depth(k); }

// The smallest scale of a row of k floats, 0 for one of zeros. A larger scale never makes a number larger, so the
// scales that fit are all from some float on, which bisection finds.
float scale_of(const float* row, i64 k, float* scratch) {
    float* const sums = scratch;  // of the lanes, in parts of 128: never infinite
    float* const lanes = scratch + bytes_depth(k);
    std::fill_n(sums, bytes_depth(k), 0.0f);
    float widest = 0;
    for (i64 i = 0; i < k; ++i) {
        widest = std::max(widest, std::fabs(row[i]));
        sums[lane_of(i)] += std::fabs(row[i]) / most_of_lane;
    }
    if (widest < 256 * FLT_MIN) return 0;
    const float fullest = *std::max_element(sums, sums + bytes_depth(k));
    // Rounding changes the sum of a lane by at most 2.
    const float low = std::max(fullest * (most_of_lane / 131.0f), widest / (most_of_byte + 1));
    const float high = std::max(fullest * (most_of_lane / 125.0f), widest / (most_of_byte - 1));
    i64 count = 0;
    for (i64 lane = 0; lane < bytes_depth(k); ++lane) {
        if (sums[lane] < low * (125.0f / most_of_lane)) continue;
        const i64 first = lane / 2 * together + lane % 2 * 2;
        for (const i64 column : {first, first + 1, first + 4, first + 5})
            lanes[count++] = column < k ? std::fabs(row[column]) : 0.0f;
    }
    std::uint32_t least = bits_of(low), most = bits_of(high);
    while (most - least > 1) {
        const std::uint32_t middle = least + (most - least) / 2;
        (fits(float_of(middle), widest, lanes, count) ? most : least) = middle;
    }
    return float_of(most);
}

bool lanes_fit(const std::int8_t* row, i64 k) {
    for (i64 first = 0; first < k; first += together)
        for (const i64 lane : {first, first + 2}) {
            int sum = 0;
            for (const i64 column : {lane, lane + 1, lane + 4, lane + 5})
                sum += column < k ? std::abs(int{row[column]}) : 0;
            if (sum > most_of_lane) return false;
        }
    return true;
}

// The nearest bfloat16, of two equally near ones the even one.
std::uint16_t to_bfloat16_bits(float x) {
    const std::uint32_t bits = bits_of(x);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// f(row) for every row of the panels, by several threads, of which those from n on do not exist.
template <typename F>
void for_rows_of_panels(i64 n, const F& f) {
    parallel_for((n + panel_width - 1) / panel_width, 1, [&](i64 begin, i64 end, float*) {
        for (i64 row = begin * panel_width; row < end * panel_width; ++row) f(row);
    });
}

}  // namespace

template <typename T>
T* PackedMatrix::line_of(i64 row) const {
    constexpr i64 of_line = sizeof(float) / sizeof(T);
    float* const panel = panels_.get() + row / panel_width * panel_width * lines_of(element_, k_);
    return reinterpret_cast<T*>(panel) + row % panel_width * of_line;
}

namespace {

// Where column i of a row is, counted from the row's first number.
template <typename T>
i64 place(i64 i) {
    constexpr i64 of_line = sizeof(float) / sizeof(T);
    return i / of_line * of_line * panel_width + i % of_line;
}

template <typename T, typename Value>
void fill_row(T* line, i64 k, i64 padded, const Value& value) {
    for (i64 i = 0; i < padded; ++i) line[place<T>(i)] = i < k ? value(i) : T{0};
}

}  // namespace

PackedMatrix PackedMatrix::to_bfloat16(const float* weight, i64 n, i64 k, i64 ldw) {
    PackedMatrix w(n, k, 1, Element::bfloat16);
    for_rows_of_panels(n, [&](i64 row) {
        fill_row(w.line_of<std::uint16_t>(row), row < n ? k : 0, 2 * lines_of(w.element_, k),
                 [&](i64 i) { return to_bfloat16_bits(weight[row * ldw + i]); });
    });
    return w;
}

PackedMatrix PackedMatrix::of_bfloat16(const std::uint16_t* bits, i64 n, i64 k) {
    PackedMatrix w(n, k, 1, Element::bfloat16);
    for_rows_of_panels(n, [&](i64 row) {
        fill_row(w.line_of<std::uint16_t>(row), row < n ? k : 0, 2 * lines_of(w.element_, k),
                 [&](i64 i) { return bits[row * k + i]; });
    });
    return w;
}

PackedMatrix PackedMatrix::to_bytes(const float* weight, i64 n, i64 k, i64 ldw, const float* input_scales) {
    const std::size_t count = static_cast<std::size_t>(n * k);
    const std::unique_ptr<std::int8_t[]> bytes(new std::int8_t[count]);
    const std::unique_ptr<float[]> scales(new float[static_cast<std::size_t>(n)]);
    const auto quantize = [&](i64 begin, i64 end, float* scratch) {
        float* const scaled = scratch + scratch_of_scale(k);
        for (i64 row = begin; row < end; ++row) {
            for (i64 i = 0; i < k; ++i)
                scaled[i] = input_scales ? weight[row * ldw + i] / input_scales[i] : weight[row * ldw + i];
            const float scale = scales[static_cast<std::size_t>(row)] = scale_of(scaled, k, scratch);
            const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
            for (i64 i = 0; i < k; ++i)
                bytes[static_cast<std::size_t>(row * k + i)] = static_cast<std::int8_t>(nearest(scaled[i], inverse));
        }
    };
    parallel_for(n, 16, quantize, scratch_of_scale(k) + k);
    return *of_bytes(bytes.get(), n, k, scales.get(), input_scales);
}

std::optional<PackedMatrix> PackedMatrix::of_bytes(const std::int8_t* bytes, i64 n, i64 k, const float* scales,
                                                   const float* input_scales) {
    std::optional<PackedMatrix> result = PackedMatrix(n, k, 1, Element::int8);
    PackedMatrix& w = *result;
    w.scales_.assign(scales, scales + n);
    w.sums_.resize(static_cast<std::size_t>(n));
    if (input_scales) w.input_scales_.assign(input_scales, input_scales + k);
    std::atomic<bool> all_fit{true};
    for_rows_of_panels(n, [&](i64 row) {
        const std::int8_t* const from = bytes + row * k;
        fill_row(w.line_of<std::int8_t>(row), row < n ? k : 0, 4 * bytes_depth(k), [&](i64 i) { return from[i]; });
        if (row >= n) return;
        std::int32_t sum = 0;
        for (i64 i = 0; i < k; ++i) sum += from[i];
        w.sums_[static_cast<std::size_t>(row)] = sum;
        if (!lanes_fit(from, k)) all_fit = false;
    });
    if (!all_fit) result.reset();
    return result;
}

void PackedMatrix::copy_bfloat16(std::uint16_t* bits) const {
    for (i64 row = 0; row < n_; ++row)
        for (i64 i = 0; i < k_; ++i) bits[row * k_ + i] = line_of<std::uint16_t>(row)[place<std::uint16_t>(i)];
}

void PackedMatrix::copy_bytes(std::int8_t* bytes) const {
    for (i64 row = 0; row < n_; ++row)
        for (i64 i = 0; i < k_; ++i) bytes[row * k_ + i] = line_of<std::int8_t>(row)[place<std::int8_t>(i)];
}

void PackedMatrix::unpack_reduced(float* weight) const {
    parallel_for(n_, 16, [&](i64 begin, i64 end, float*) {
        for (i64 row = begin; row < end; ++row)
            for (i64 i = 0; i < k_; ++i) {
                float& to = weight[row * k_ + i];
                if (element_ == Element::bfloat16) {
                    to = float_of(std::uint32_t{line_of<std::uint16_t>(row)[place<std::uint16_t>(i)]} << 16);
                } else {
                    const float byte = line_of<std::int8_t>(row)[place<std::int8_t>(i)];
                    to = byte * scales_[static_cast<std::size_t>(row)];
                    if (!input_scales_.empty()) to *= input_scales_[static_cast<std::size_t>(i)];
                }
            }
    });
}

}  // namespace fastattn
