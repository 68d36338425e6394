// A weight matrix in the layout that the GEMM reads: one layout for every instruction set.
//
// W [n, k] becomes ceil(n / 16) panels of 16 output columns; a panel is [k][16], the last one filled up with zeros.
// A vector register of any set divides 16 floats, a K block of a panel is contiguous, and so is a whole panel.
#pragma once

#include <memory>

#include "kernels.h"

namespace fastattn {

constexpr i64 panel_width = 16;

class PackedMatrix {
public:
    PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw);  // copies; std::bad_alloc
    void unpack(float* weight) const;                          // [n, k] contiguous

    i64 n() const { return n_; }
    i64 k() const { return k_; }
    i64 floats() const { return (n_ + panel_width - 1) / panel_width * panel_width * k_; }
    const float* panels() const { return panels_.get(); }

private:
    struct Free {
        void operator()(float* p) const;
    };
    i64 n_, k_;
    std::unique_ptr<float[], Free> panels_;
};

}  // namespace fastattn
