// Filling panels (packing.h). Included by objects of every instruction set, so everything here is local to its file.
#pragma once

#include "../packing.h"

namespace fastattn {
namespace {

typedef float f4 __attribute__((vector_size(16)));

[[maybe_unused]] inline __attribute__((always_inline)) f4 load4(const float* p) {
    f4 x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
}

// panel[i][c] = rows[c * ld + i] for c < columns, 0 for the others; panel is [depth][16]. `also(c, i)` is called for
// each of these rows and an i of each line of them.
template <typename F>
[[maybe_unused]] inline __attribute__((always_inline)) void pack_panel(float* panel, const float* rows, i64 ld,
                                                                       i64 columns, i64 depth, const F& also) {
    const f4 none = {};
    i64 i = 0;
    for (; i + 4 <= depth; i += 4) {
#pragma GCC unroll 4
        for (int c = 0; c < panel_width; c += 4) {
            const float* from = rows + c * ld + i;
            const i64 left = columns - c;  // a column that does not exist is not read
            const i64 row = i / 4 % 4;     // one of four at a time
            if (left > row) also(c + row, i);
            const f4 a = left > 0 ? load4(from) : none, b = left > 1 ? load4(from + ld) : none;
            const f4 d = left > 2 ? load4(from + 2 * ld) : none, e = left > 3 ? load4(from + 3 * ld) : none;
            const f4 ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab1 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
            const f4 de0 = __builtin_shufflevector(d, e, 0, 4, 1, 5), de1 = __builtin_shufflevector(d, e, 2, 6, 3, 7);
            const f4 t0 = __builtin_shufflevector(ab0, de0, 0, 1, 4, 5),
                     t1 = __builtin_shufflevector(ab0, de0, 2, 3, 6, 7);
            const f4 t2 = __builtin_shufflevector(ab1, de1, 0, 1, 4, 5),
                     t3 = __builtin_shufflevector(ab1, de1, 2, 3, 6, 7);
            float* to = panel + i * panel_width + c;
            __builtin_memcpy(to, &t0, sizeof t0);
            __builtin_memcpy(to + panel_width, &t1, sizeof t1);
            __builtin_memcpy(to + 2 * panel_width, &t2, sizeof t2);
            __builtin_memcpy(to + 3 * panel_width, &t3, sizeof t3);
        }
    }
    for (; i < depth; ++i)
        for (i64 c = 0; c < panel_width; ++c) panel[i * panel_width + c] = c < columns ? rows[c * ld + i] : 0.0f;
}

[[maybe_unused]] inline void pack_panel(float* panel, const float* rows, i64 ld, i64 columns, i64 depth) {
    pack_panel(panel, rows, ld, columns, depth, [](i64, i64) {});
}

// panel[i][c] = rows[i * ld + c] for c < columns, 0 for the others: from a matrix that is stored transposed.
[[maybe_unused]] inline void copy_panel(float* panel, const float* rows, i64 ld, i64 columns, i64 depth) {
    for (i64 i = 0; i < depth; ++i, rows += ld, panel += panel_width) {
        if (columns == panel_width) {
            __builtin_memcpy(panel, rows, panel_width * sizeof(float));
        } else {
            for (i64 c = 0; c < panel_width; ++c) panel[c] = c < columns ? rows[c] : 0.0f;
        }
    }
}

}  // namespace
}  // namespace fastattn
