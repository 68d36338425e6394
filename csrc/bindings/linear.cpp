#include "linear.h"

#include "bindings.h"

namespace fastattn::bindings {

LinearOperands::LinearOperands(const char* function, py::handle x_, py::handle weight_, bool any_element)
    : x(floats(function, "x", x_).expect_contiguous_rows()),
      weight(function, "weight", weight_, 1, 2, any_element),
      projection(x.shape.with_last(weight.n)) {}

LinearGradients::LinearGradients(const char* function, LinearBackward& args, const Array& x, Occupied occupied,
                                 py::handle need_dx, py::handle need_dweight, py::handle need_dbias,
                                 py::handle dweight_, py::handle dbias_) {
    if (boolean(function, "need_dx", need_dx)) args.dx = data_of(dx = new_floats(x.shape));
    if (boolean(function, "need_dweight", need_dweight)) {
        const Output out(function, "dweight", dweight_, {args.n, args.k});
        args.dweight = occupied.take(out);
        args.add_to_dweight = !dweight_.is_none();
        dweight = out.object;
    }
    if (boolean(function, "need_dbias", need_dbias)) {
        const Output out(function, "dbias", dbias_, {args.n});
        args.dbias = occupied.take(out);
        args.add_to_dbias = !dbias_.is_none();
        dbias = out.object;
        args.block_sums = data_of(block_sums_ = new_floats({sum_blocks(args.m), args.n}));
    }
}

namespace {

void expect_columns(const LinearOperands& operands) {
    if (operands.x.last() != operands.weight.k)
        value_error(operands.x.where.str() + " must have " + std::to_string(operands.weight.k) +
                    " columns, the last axis of weight, got shape " + operands.x.shape.str());
}

py::object linear(py::handle x, py::handle weight, py::handle bias_, py::handle residual_, py::handle activation,
                  py::handle return_pre_activation_, py::handle out_) {
    const char* const f = "linear";
    const LinearOperands operands(f, x, weight, true);
    expect_columns(operands);
    LinearForward args{};
    operands.fill(args);
    const Array bias = optional_floats(f, "bias", bias_);
    if (bias) args.bias = bias.expect_shape({args.n}).expect_contiguous().as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    const Output out(f, "out", out_, operands.projection);
    if (residual) {
        args.residual = residual.expect_shape(operands.projection).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    out.apart_from(operands.x).apart_from(operands.weight.array).apart_from(bias).apart_from(residual);
    args.y = out.data();
    args.ldy = args.n;
    if (!activation.is_none()) args.activation = choose(f, "activation", activation, activations);
    const bool return_pre_activation = boolean(f, "return_pre_activation", return_pre_activation_);
    if (return_pre_activation && args.weight.element == Element::int8)
        value_error("linear: return_pre_activation is for training, which int8 weights do not have");
    py::object pre_activation;
    if (return_pre_activation) args.pre_activation = data_of(pre_activation = new_floats(operands.projection));
    compute(&KernelTable::linear_forward, args);
    if (return_pre_activation) return py::make_tuple(out.object, pre_activation);
    return out.object;
}

py::object linear_backward(py::handle dy_, py::handle x, py::handle weight, py::handle activation,
                           py::handle pre_activation_, py::handle need_dx, py::handle need_dweight,
                           py::handle need_dbias, py::handle dweight, py::handle dbias) {
    const char* const f = "linear_backward";
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const LinearOperands operands(f, x, weight);
    expect_columns(operands);
    LinearBackward args{};
    operands.fill(args);
    args.dy = dy.expect_shape(operands.projection).as<float>();
    args.ldy = dy.row_stride();

    Array pre_activation;
    py::object d;
    if (!activation.is_none()) {
        args.activation = choose(f, "activation", activation, activations);
        if (pre_activation_.is_none())
            value_error(std::string(f) + ": pre_activation must be given with activation, got None");
        pre_activation = floats(f, "pre_activation", pre_activation_).expect_shape(dy.shape).expect_contiguous_rows();
        args.pre_activation = pre_activation.as<float>();
        args.ldp = pre_activation.row_stride();
        args.d = data_of(d = new_floats(dy.shape));
    } else if (!pre_activation_.is_none()) {
        value_error(std::string(f) + ": pre_activation must be None without an activation");
    }
    const LinearGradients gradients(f, args, operands.x, {&dy, &operands.x, &operands.weight.array, &pre_activation},
                                    need_dx, need_dweight, need_dbias, dweight, dbias);
    compute_now(&KernelTable::linear_backward, args);
    return gradients.tuple();
}

}  // namespace

void bind_linear(py::module_& m) {
    m.def("linear", &linear);
    m.def("linear_backward", &linear_backward);
}

}  // namespace fastattn::bindings
