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
};

// y = act(A B + bias) + residual, with A [rows, depth], B [depth, columns]
struct Product {
    float* y;               // row stride ldy; may be c
    float* c;               // A B + bias, row stride ldc
    const float* a;         // [rows][depth], or [depth][rows] when a_by_columns, row stride lda
    const float* b;         // see LayoutB
    const float* bias;      // [columns] or null
    const float* residual;  // row stride ldr, or null
    i64 rows, columns, depth;
    i64 ldy, ldc, lda, ldb, ldr;
    LayoutB layout_b;
    bool a_by_columns;
    bool accumulate;  // start from the values in c
    Activation activation;
};

void multiply(Product product);

// Reserves memory, so that later products with a_by_columns do not throw. Throws std::bad_alloc.
void reserve_for_products_by_columns();

}  // namespace fastattn::FASTATTN_ISA
