#include "bindings.h"

namespace fastattn::bindings {
namespace {

py::object layer_norm(py::handle x_, py::handle weight_, py::handle bias_, py::handle eps, py::handle residual_,
                      py::handle dropout_p, py::handle seed, py::handle return_stats_, py::handle out_) {
    const char* const f = "layer_norm";
    LayerNormForward args{};
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    set_rows(args, x);
    const Array weight = optional_floats(f, "weight", weight_), bias = optional_floats(f, "bias", bias_);
    if (weight) args.weight = weight.expect_shape({args.dim}).expect_contiguous().as<float>();
    if (bias) args.bias = bias.expect_shape({args.dim}).expect_contiguous().as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    if (residual) {
        args.residual = residual.expect_shape(x.shape).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    args.eps = static_cast<float>(not_negative(f, "eps", eps));
    args.dropout = dropout(f, "dropout_p", dropout_p, seed);
    const Output out(f, "out", out_, x.shape);
    out.apart_from(x, true).apart_from(residual, true).apart_from(weight).apart_from(bias);
    args.y = out.data();
    args.ldy = args.dim;
    py::object mean, rstd;
    const bool return_stats = boolean(f, "return_stats", return_stats_);
    if (return_stats) {
        mean = new_floats(x.shape.without_last());
        rstd = new_floats(x.shape.without_last());
        args.mean = data_of(mean);
        args.rstd = data_of(rstd);
    }
    compute(&KernelTable::layer_norm_forward, args);
    if (return_stats) return py::make_tuple(out.object, mean, rstd);
    return out.object;
}

py::object layer_norm_backward(py::handle dy_, py::handle x_, py::handle weight_, py::handle mean_, py::handle rstd_,
                               py::handle residual_, py::handle dropout_p, py::handle seed, py::handle need_dx,
                               py::handle need_dresidual, py::handle need_dweight, py::handle need_dbias,
                               py::handle dweight_, py::handle dbias_) {
    const char* const f = "layer_norm_backward";
    LayerNormBackward args{};
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const Array x = floats(f, "x", x_).expect_contiguous_rows().expect_shape(dy.shape);
    args.dy = dy.as<float>();
    args.lddy = dy.row_stride();
    set_rows(args, x);
    const Array weight = optional_floats(f, "weight", weight_);
    if (weight) args.weight = weight.expect_shape({args.dim}).expect_contiguous().as<float>();
    const Array mean = floats(f, "mean", mean_).expect_shape(x.shape.without_last()).expect_contiguous();
    const Array rstd = floats(f, "rstd", rstd_).expect_shape(x.shape.without_last()).expect_contiguous();
    args.mean = mean.as<float>();
    args.rstd = rstd.as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    if (residual) {
        args.residual = residual.expect_shape(x.shape).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    args.dropout = dropout(f, "dropout_p", dropout_p, seed);

    py::object dx = py::none(), dresidual = py::none(), dweight = py::none(), dbias = py::none();
    if (boolean(f, "need_dx", need_dx)) args.dx = data_of(dx = new_floats(x.shape));
    if (boolean(f, "need_dresidual", need_dresidual) && residual)
        args.dresidual = data_of(dresidual = new_floats(x.shape));
    Occupied occupied{&dy, &x, &weight, &mean, &rstd, &residual};
    const auto sum_over_rows = [&](const char* name, py::handle given, py::object& result) {
        const Output sum = accumulator(f, name, given, {args.dim});
        result = sum.object;
        return occupied.take(sum);
    };
    if (boolean(f, "need_dweight", need_dweight) && weight) args.dweight = sum_over_rows("dweight", dweight_, dweight);
    if (boolean(f, "need_dbias", need_dbias) && weight) args.dbias = sum_over_rows("dbias", dbias_, dbias);
    py::object block_sums;
    if (args.dweight || args.dbias)
        args.block_sums = data_of(block_sums = new_floats({sum_blocks(args.rows), 2, args.dim}));
    compute_now(&KernelTable::layer_norm_backward, args);
    return py::make_tuple(dx, dresidual, dweight, dbias);
}

}  // namespace

void bind_layer_norm(py::module_& m) {
    m.def("layer_norm", &layer_norm);
    m.def("layer_norm_backward", &layer_norm_backward);
}

}  // namespace fastattn::bindings
