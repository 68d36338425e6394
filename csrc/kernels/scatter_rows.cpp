#include <cstring>

#include "row.h"

namespace fastattn::FASTATTN_ISA {

void scatter_rows_forward(const ScatterRowsForward& args) {
    for_rows(args.count, args.dim, [&](i64 row) {
        std::memcpy(args.into + args.rows[row] * args.dim, args.x + row * args.ldx,
                    static_cast<std::size_t>(args.dim) * sizeof(float));
    });
}

}  // namespace fastattn::FASTATTN_ISA
