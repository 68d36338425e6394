// A weight matrix in the layout that the GEMM reads: one layout for every instruction set.
//
// W [n, k] becomes ceil(n / 16) panels of 16 output columns; a panel is [k][16], and the last is padded with zeros.
// A vector register of any set divides 16 floats, a K block of a panel is contiguous, and so is a whole panel.
// A recurrent layer's gates are `groups` blocks of rows. The panels of the same 16 units, one per gate, are adjacent:
// a step of 16 units reads one stretch of memory.
#pragma once

#include <memory>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace fastattn {

constexpr i64 panel_width = 16;

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
    // Packs the rows of matrices as they are read; they are never held plain. Empty in the place of a matrix if a file
    // ends before, cannot be read or has a number that is not finite. Throws std::bad_alloc.
    static std::vector<std::unique_ptr<PackedMatrix>> read(const std::vector<StoredMatrix>& matrices);
    void unpack(float* weight) const;  // [n, k] contiguous
    PackedMatrix transposed() const;   // W^T in panels, one group
    static PackedMatrix transposed(const float* weight, i64 n, i64 k, i64 ldw);

    i64 n() const { return n_; }
    i64 k() const { return k_; }
    i64 groups() const { return groups_; }
    i64 panels_of_group() const { return (n_ / groups_ + panel_width - 1) / panel_width; }
    i64 floats() const { return groups_ * panels_of_group() * panel_width * k_; }
    const float* panels() const { return panels_.get(); }

private:
    struct Free {
        Block block;                   // memory that training reuses; without data: malloc's, or
        std::shared_ptr<Pages> pages;  // pages of the system's, block.bytes of them
        void operator()(float* p) const;
    };
    static std::unique_ptr<float[], Free> allocate(i64 floats);
    std::size_t bytes() const { return static_cast<std::size_t>(floats()) * sizeof(float); }
    PackedMatrix(i64 n, i64 k, i64 groups);
    i64 n_, k_, groups_;
    std::unique_ptr<float[], Free> panels_;
};

}  // namespace fastattn
