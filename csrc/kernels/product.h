// The matrix product of the linear layer and its gradients, by several threads.
#pragma once

#include "../kernels.h"

namespace fastattn::FASTATTN_ISA {

// How B lies in memory.
enum class LayoutB {
    panels,             // in panels
    columns,            // [columns][depth], row stride ldb: a weight, for x W^T
    rows,               // [depth][columns], row stride ldb
    transposed_panels,  // in panels of its transpose, [depth / 16][columns][16]
    bfloat16_panels,    // in panels of bfloat16, from which each item makes panels
};

// An element of A is scales[row] * (byte - zeros[row]), one of B column_scales[column] * its byte.
struct Dequantization {
    const float* scales;
    const std::int32_t* zeros;
    const float* column_scales;
    const std::int32_t* sums;  // of the bytes of B's columns
};

// y = act(A B + bias) + residual, with A [rows, depth], B [depth, columns]
struct Product {
    float* y;               // row stride ldy; may be c
    float* c;               // A B + bias, row stride ldc
    const float* a;         // [rows][depth], or [depth][rows] when a_by_columns, row stride lda
    const float* b;         // see LayoutB; of panels, the element says what the bits are
    const float* bias;      // [columns] or null
    const float* residual;  // row stride ldr, or null
    i64 rows, columns, depth;
    i64 ldy, ldc, lda, ldb, ldr;
    LayoutB layout_b;
    bool a_by_columns;
    bool accumulate;  // start from the values in c
    Activation activation;
    Element element;                // of B, and int8: of A, too; four bytes are one element of the depth, which is even
    Dequantization dequantization;  // int8; y is c
};

void multiply(Product product);

// Reserves memory, so that later products with a_by_columns do not throw. Throws std::bad_alloc.
void reserve_for_products_by_columns();

}  // namespace fastattn::FASTATTN_ISA
