#include "bindings.h"

namespace fastattn::bindings {
namespace {

py::object dropout_forward(py::handle x_, py::handle p, py::handle seed, py::handle residual_, py::handle out_) {
    const char* const f = "dropout";
    DropoutForward args{};
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    set_rows(args, x);
    args.dropout = dropout(f, "p", p, seed);
    const Array residual = optional_floats(f, "residual", residual_);
    if (residual) {
        args.residual = residual.expect_shape(x.shape).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    const Output out(f, "out", out_, x.shape);
    args.y = out.apart_from(x, true).apart_from(residual).data();
    compute(&KernelTable::dropout_forward, args);
    return out.object;
}

py::object dropout_backward(py::handle dy_, py::handle p, py::handle seed, py::handle out_) {
    const char* const f = "dropout_backward";
    DropoutBackward args{};
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    args.dy = dy.as<float>();
    args.rows = dy.rows();
    args.dim = dy.last();
    args.lddy = dy.row_stride();
    args.dropout = dropout(f, "p", p, seed);
    const Output out(f, "out", out_, dy.shape);
    args.dx = out.apart_from(dy, true).data();
    compute_now(&KernelTable::dropout_backward, args);
    return out.object;
}

}  // namespace

void bind_dropout(py::module_& m) {
    m.def("dropout", &dropout_forward);
    m.def("dropout_backward", &dropout_backward);
}

}  // namespace fastattn::bindings
