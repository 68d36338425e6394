#include "bindings.h"
#include "linear.h"

namespace fastattn::bindings {
namespace {

// The shape of y: half of x's columns.
template <typename Args>
Shape set_halves(Args& args, const Array& x) {
    if (x.last() % 2) value_error(x.where.str() + " must have an even number of columns, got shape " + x.shape.str());
    set_rows(args, x);
    args.dim /= 2;
    return x.shape.with_last(args.dim);
}

// Whether `out` is the first half of x, whose elements are read before they are written.
bool is_first_half(const char* f, py::handle out_, const Array& x, const Shape& half) {
    if (out_.is_none()) return false;
    const Array out = floats(f, "out", out_);
    return out.data == x.data && out.shape == half && std::equal(out.stride, out.stride + half.ndim, x.stride) &&
           py::reinterpret_borrow<py::array>(out_).writeable();
}

py::object gated_activation(py::handle x_, py::handle activation, py::handle out_) {
    const char* const f = "gated_activation";
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    GatedActivationForward args{};
    const Shape shape = set_halves(args, x);
    args.activation = choose(f, "activation", activation, activations);
    if (is_first_half(f, out_, x, shape)) {
        args.y = x.as<float>();
        args.ldy = args.ldx;
        compute(&KernelTable::gated_activation_forward, args);
        return py::reinterpret_borrow<py::object>(out_);
    }
    const Output out(f, "out", out_, shape);
    args.y = out.apart_from(x).data();
    args.ldy = args.dim;
    compute(&KernelTable::gated_activation_forward, args);
    return out.object;
}

py::object gated_activation_backward(py::handle dy_, py::handle x_, py::handle activation, py::handle out_) {
    const char* const f = "gated_activation_backward";
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    GatedActivationBackward args{};
    dy.expect_shape(set_halves(args, x));
    args.dy = dy.as<float>();
    args.lddy = dy.row_stride();
    args.activation = choose(f, "activation", activation, activations);
    const Output out(f, "out", out_, x.shape);
    args.dx = out.apart_from(dy).apart_from(x).data();
    compute_now(&KernelTable::gated_activation_backward, args);
    return out.object;
}

}  // namespace

void bind_gated_activation(py::module_& m) {
    m.def("gated_activation", &gated_activation);
    m.def("gated_activation_backward", &gated_activation_backward);
}

}  // namespace fastattn::bindings
