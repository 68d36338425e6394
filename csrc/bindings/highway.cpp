#include "bindings.h"
#include "linear.h"

namespace fastattn::bindings {
namespace {

LinearOperands operands_of(const char* f, py::handle x, py::handle weight) {
    LinearOperands operands(f, x, weight);
    operands.weight.expect_shape(2 * operands.x.last(), operands.x.last());
    return operands;
}

py::object highway(py::handle x, py::handle weight, py::handle bias_, py::handle return_projection_, py::handle out_) {
    const char* const f = "highway";
    const LinearOperands operands = operands_of(f, x, weight);
    HighwayForward args{};
    operands.fill(args.linear);
    const Array bias = floats(f, "bias", bias_).expect_shape({args.linear.n}).expect_contiguous();
    args.linear.bias = bias.as<float>();
    args.linear.ldy = args.linear.n;
    const Output out(f, "out", out_, operands.x.shape);
    args.y = out.apart_from(operands.x, true).apart_from(operands.weight.array).apart_from(bias).data();
    const bool return_projection = boolean(f, "return_projection", return_projection_);
    py::object projection;
    if (return_projection || !operands.weight.is_packed())
        args.linear.y = data_of(projection = new_floats(operands.projection));
    compute(&KernelTable::highway_forward, args);
    if (return_projection) return py::make_tuple(out.object, projection);
    return out.object;
}

py::object highway_backward(py::handle dy_, py::handle x, py::handle weight, py::handle projection_, py::handle need_dx,
                            py::handle need_dweight, py::handle need_dbias, py::handle dweight, py::handle dbias) {
    const char* const f = "highway_backward";
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const LinearOperands operands = operands_of(f, x, weight);
    HighwayBackward args{};
    operands.fill(args.linear);
    args.dy = dy.expect_shape(operands.x.shape).as<float>();
    args.lddy = dy.row_stride();
    const Array projection = floats(f, "projection", projection_).expect_contiguous().expect_shape(operands.projection);
    args.projection = projection.as<float>();
    const LinearGradients gradients(f, args.linear, operands.x, {&dy, &operands.x, &operands.weight.array, &projection},
                                    need_dx, need_dweight, need_dbias, dweight, dbias);
    if (args.linear.dx || args.linear.dweight || args.linear.dbias) {
        const py::object d = new_floats(operands.projection);
        args.linear.dy = args.d = data_of(d);
        args.linear.ldy = args.linear.n;
        compute_now(&KernelTable::highway_backward, args);
    }
    return gradients.tuple();
}

}  // namespace

void bind_highway(py::module_& m) {
    m.def("highway", &highway);
    m.def("highway_backward", &highway_backward);
}

}  // namespace fastattn::bindings
