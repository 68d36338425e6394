#include "../dispatch.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

py::object layer_norm(py::handle x_, py::handle weight_, py::handle bias_, py::handle eps, py::handle residual_,
                      bool return_stats, py::handle out_) {
    const char* const f = "layer_norm";
    LayerNormForward args{};
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    args.x = x.as<float>();
    args.rows = x.rows();
    args.dim = x.last();
    args.ldx = x.row_stride();
    const Array weight = optional_floats(f, "weight", weight_), bias = optional_floats(f, "bias", bias_);
    if (weight) args.weight = weight.expect_shape({args.dim}).expect_contiguous().as<float>();
    if (bias) args.bias = bias.expect_shape({args.dim}).expect_contiguous().as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    if (residual) {
        args.residual = residual.expect_shape_of(x).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    args.eps = static_cast<float>(not_negative(f, "eps", eps));
    const Output out(f, "out", out_, x);
    out.apart_from(x, true).apart_from(residual, true).apart_from(weight).apart_from(bias);
    args.y = out.data();
    args.ldy = args.dim;
    py::object mean, rstd;
    if (return_stats) {
        mean = new_floats(x.shape, x.ndim - 1);
        rstd = new_floats(x.shape, x.ndim - 1);
        args.mean = data_of(mean);
        args.rstd = data_of(rstd);
    }
    {
        const py::gil_scoped_release release;
        kernels().layer_norm_forward(args);
    }
    if (return_stats) return py::make_tuple(out.object, mean, rstd);
    return out.object;
}

}  // namespace

void bind_layer_norm(py::module_& m) { m.def("layer_norm", &layer_norm); }

}  // namespace fastattn::bindings
