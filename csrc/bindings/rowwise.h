// Kernels that map each row of one array to a row of another: y = f(x), and dx = f(dy, x) or f(dy, y).
#pragma once

#include "bindings.h"

namespace fastattn::bindings {

// x, whose rows a kernel goes through.
template <typename Args>
void set_rows(Args& args, const Array& x) {
    args.x = x.as<float>();
    args.rows = x.rows();
    args.dim = x.last();
    args.ldx = x.row_stride();
}

template <typename Args>
py::object rowwise(const char* function, void (*KernelTable::*kernel)(const Args&), py::handle x_, py::handle out_,
                   Args args = {}) {
    const Array x = floats(function, "x", x_).expect_contiguous_rows();
    set_rows(args, x);
    const Output out(function, "out", out_, x.shape);
    args.y = out.apart_from(x, true).data();
    compute(kernel, args);
    return out.object;
}

struct Saved {  // what a backward pass needs of its forward pass
    const char* name;
    py::handle object;
};

template <typename Args>
py::object rowwise_backward(const char* function, void (*KernelTable::*kernel)(const Args&), py::handle dy_,
                            Saved saved_, const float* Args::* data, i64 Args::* stride, py::handle out_,
                            Args args = {}) {
    const Array dy = floats(function, "dy", dy_).expect_contiguous_rows();
    const Array saved = floats(function, saved_.name, saved_.object).expect_contiguous_rows().expect_shape(dy.shape);
    args.dy = dy.as<float>();
    args.*data = saved.as<float>();
    args.rows = dy.rows();
    args.dim = dy.last();
    args.lddy = dy.row_stride();
    args.*stride = saved.row_stride();
    const Output out(function, "out", out_, dy.shape);
    args.dx = out.apart_from(dy, true).apart_from(saved, true).data();
    compute(kernel, args);
    return out.object;
}

}  // namespace fastattn::bindings
