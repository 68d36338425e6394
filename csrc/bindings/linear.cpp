#include "../dispatch.h"
#include "../packing.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<Activation> activations[] = {
    {"relu", Activation::relu}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
    {"silu", Activation::silu}, {"tanh", Activation::tanh},
};

py::object linear(py::handle x_, py::handle weight_, py::handle bias_, py::handle residual_, py::handle activation_,
                  py::handle out_) {
    const char* const f = "linear";
    LinearForward args{};
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    Array weight;
    if (py::isinstance<PackedMatrix>(weight_)) {
        const auto& packed = weight_.cast<const PackedMatrix&>();
        args.panels = packed.panels();
        args.n = packed.n();
        args.k = packed.k();
    } else {
        weight = floats(f, "weight", weight_).expect_ndim(2).expect_contiguous_rows();
        args.weight = weight.as<float>();
        args.n = weight.shape[0];
        args.k = weight.shape[1];
        args.ldw = weight.stride[0];
    }
    if (x.last() != args.k)
        value_error(std::string(f) + ": x must have " + std::to_string(args.k) +
                    " columns, the last axis of weight, got shape " + x.shape_str());
    args.m = x.rows();
    args.x = x.as<float>();
    args.ldx = x.row_stride();

    i64 shape[Array::max_ndim];
    std::copy(x.shape, x.shape + x.ndim, shape);
    shape[x.ndim - 1] = args.n;
    const Array bias = optional_floats(f, "bias", bias_);
    if (bias) args.bias = bias.expect_shape({args.n}).expect_contiguous().as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    const Output out(f, "out", out_, shape, x.ndim);
    if (residual) {
        args.residual = residual.expect_shape_of(out.array()).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    out.apart_from(x).apart_from(weight).apart_from(bias).apart_from(residual);
    args.y = out.data();
    args.ldy = args.n;
    if (!activation_.is_none()) args.activation = choose(f, "activation", activation_, activations);

    const py::gil_scoped_release release;
    kernels().linear_forward(args);
    return out.object;
}

}  // namespace

void bind_linear(py::module_& m) { m.def("linear", &linear); }

}  // namespace fastattn::bindings
