// A weight matrix in the layout that the GEMM reads: one layout for every instruction set.
//
// W [n, k] becomes ceil(n / 16) panels of 16 output columns; a panel is [k][16], and the last is padded with zeros.
// A vector register of any set divides 16 floats, a K block of a panel is contiguous, and so is a whole panel.
// Weights of fewer bits have the same lines of 64 bytes: a panel of bfloat16 is [k / 2][16][2], one of bytes
// [k / 4][16][4] with k rounded up to 8; what is beyond W is 0.
// A recurrent layer's gates are `groups` blocks of rows. The panels of the same 16 units, one per gate, are adjacent:
// a step of 16 units reads one stretch of memory.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace fastattn {

constexpr i64 panel_width = 16;
constexpr i64 most_columns_of_bytes = 1 << 18;  // the sums of products fit into an int32

constexpr i64 bytes_depth(i64 k) { return (k + 7) / 8 * 2; }  // of k bytes, in units of four
constexpr i64 lines_of(Element element, i64 k) {              // of a panel
    return element == Element::float32 ? k : element == Element::bfloat16 ? (k + 1) / 2 : bytes_depth(k);
}

// Rows of a matrix of floats in an open file, from the byte `offset` on.
struct StoredRows {
    int file;
    i64 offset, rows;
};

struct StoredMatrix {
    std::vector<StoredRows> pieces;  // one below the other
    i64 k, groups;
};

class Pages;

class PackedMatrix {
public:
    // Copies W [n, k], row stride ldw; `groups` divides n. Throws std::bad_alloc.
    PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw, i64 groups = 1);
    // W [n, k], finite, as bfloat16, or as int8 (quantization.cpp). W is about scales[row] * its bytes *
    // input_scales[column], where the latter are given or, if null, 1. Throws std::bad_alloc.
    static PackedMatrix to_bfloat16(const float* weight, i64 n, i64 k, i64 ldw);
    static PackedMatrix to_bytes(const float* weight, i64 n, i64 k, i64 ldw, const float* input_scales);
    // From the numbers themselves, contiguous, and their copy. of_bytes: std::nullopt if a product could saturate.
    static PackedMatrix of_bfloat16(const std::uint16_t* bits, i64 n, i64 k);
    static std::optional<PackedMatrix> of_bytes(const std::int8_t* bytes, i64 n, i64 k, const float* scales,
                                                const float* input_scales);
    void copy_bfloat16(std::uint16_t* bits) const;
    void copy_bytes(std::int8_t* bytes) const;
    // Packs the rows of matrices as they are read; they are never held plain. Empty in the place of a matrix if a file
    // ends before, cannot be read or has a number that is not finite. Throws std::bad_alloc.
    static std::vector<std::unique_ptr<PackedMatrix>> read(const std::vector<StoredMatrix>& matrices);
    void unpack(float* weight) const;  // [n, k] contiguous; the numbers that W has become
    PackedMatrix transposed() const;   // W^T in panels, one group
    static PackedMatrix transposed(const float* weight, i64 n, i64 k, i64 ldw);

    i64 n() const { return n_; }
    i64 k() const { return k_; }
    i64 groups() const { return groups_; }
    i64 panels_of_group() const { return (n_ / groups_ + panel_width - 1) / panel_width; }
    Element element() const { return element_; }
    i64 floats() const { return groups_ * panels_of_group() * panel_width * lines_of(element_, k_); }
    i64 nbytes() const;  // of memory
    const float* panels() const { return panels_.get(); }
    WeightView view() const;
    const std::vector<float>& scales() const { return scales_; }              // [n]; int8
    const std::vector<float>& input_scales() const { return input_scales_; }  // [k], or empty

private:
    struct Free {
        Block block;                   // memory that training reuses; without data: malloc's, or
        std::shared_ptr<Pages> pages;  // pages of the system's, block.bytes of them
        void operator()(float* p) const;
    };
    static std::unique_ptr<float[], Free> allocate(i64 floats);
    std::size_t bytes_of_panels() const { return static_cast<std::size_t>(floats()) * sizeof(float); }
    PackedMatrix(i64 n, i64 k, i64 groups, Element element = Element::float32);
    void unpack_reduced(float* weight) const;
    template <typename T>
    T* line_of(i64 row) const;  // where the numbers of a row begin
    i64 n_, k_, groups_;
    Element element_;
    std::vector<float> scales_, input_scales_;
    std::vector<std::int32_t> sums_;
    std::unique_ptr<float[], Free> panels_;
};

}  // namespace fastattn
