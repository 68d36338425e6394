// Kernels that map each row of one array to a row of another: y = f(x).
#pragma once

#include "../dispatch.h"
#include "bindings.h"

namespace fastattn::bindings {

template <typename Args>
py::object rowwise(const char* function, void (*KernelTable::*kernel)(const Args&), py::handle x_, py::handle out_,
                   Args args = {}) {
    const Array x = floats(function, "x", x_).expect_contiguous_rows();
    args.x = x.as<float>();
    args.rows = x.rows();
    args.dim = x.last();
    args.ldx = x.row_stride();
    const Output out(function, "out", out_, x);
    args.y = out.apart_from(x, true).data();
    const py::gil_scoped_release release;
    (kernels().*kernel)(args);
    return out.object;
}

}  // namespace fastattn::bindings
