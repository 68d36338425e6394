#include "rowwise.h"

namespace fastattn::bindings {
namespace {

py::object dropout_backward(py::handle dy_, py::handle p, py::handle seed, py::handle out_) {
    const char* const f = "dropout_backward";
    DropoutBackward args{};
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    args.dy = dy.as<float>();
    args.rows = dy.rows();
    args.dim = dy.last();
    args.lddy = dy.row_stride();
    args.dropout = dropout(f, "p", p, seed);
    const Output out(f, "out", out_, dy);
    args.dx = out.apart_from(dy, true).data();
    compute(&KernelTable::dropout_backward, args);
    return out.object;
}

}  // namespace

void bind_dropout(py::module_& m) {
    m.def("dropout", [](py::handle x, py::handle p, py::handle seed, py::handle out) {
        DropoutForward args{};
        args.dropout = dropout("dropout", "p", p, seed);
        return rowwise("dropout", &KernelTable::dropout_forward, x, out, args);
    });
    m.def("dropout_backward", &dropout_backward);
}

}  // namespace fastattn::bindings
