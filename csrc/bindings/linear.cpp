#include "../packing.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<Activation> activations[] = {
    {"relu", Activation::relu}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
    {"silu", Activation::silu}, {"tanh", Activation::tanh},
};

struct Weight {  // W [n, k], an array or packed
    Weight(const char* f, py::handle object) {
        if (py::isinstance<PackedMatrix>(object)) {
            const auto& packed = object.cast<const PackedMatrix&>();
            if (packed.groups() != 1)
                value_error(std::string(f) + ": weight must be packed with groups=1, got " +
                            std::to_string(packed.groups()));
            panels = packed.panels();
            n = packed.n();
            k = packed.k();
        } else {
            array = floats(f, "weight", object).expect_ndim(2).expect_contiguous_rows();
            n = array.shape[0];
            k = array.shape[1];
        }
    }
    Array array;
    const float* panels = nullptr;
    i64 n, k;
};

struct Shape {  // that of `array` with another last axis
    Shape(const Array& array, i64 last) : ndim(array.ndim) {
        std::copy(array.shape, array.shape + ndim, axes);
        axes[ndim - 1] = last;
    }
    i64 axes[Array::max_ndim];
    int ndim;
};

void expect_columns(const Array& x, i64 columns, const char* axis) {
    if (x.last() != columns)
        value_error(x.where.str() + " must have " + std::to_string(columns) + " columns, the " + axis +
                    " axis of weight, got shape " + x.shape_str());
}

py::object linear(py::handle x_, py::handle weight_, py::handle bias_, py::handle residual_, py::handle activation_,
                  bool return_pre_activation, py::handle out_) {
    const char* const f = "linear";
    LinearForward args{};
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    const Weight weight(f, weight_);
    expect_columns(x, weight.k, "last");
    args.panels = weight.panels;
    args.weight = weight.array.as<float>();
    args.ldw = weight.array.ndim ? weight.array.stride[0] : 0;
    args.n = weight.n;
    args.k = weight.k;
    args.m = x.rows();
    args.x = x.as<float>();
    args.ldx = x.row_stride();

    const Shape shape(x, args.n);
    const Array bias = optional_floats(f, "bias", bias_);
    if (bias) args.bias = bias.expect_shape({args.n}).expect_contiguous().as<float>();
    const Array residual = optional_floats(f, "residual", residual_);
    const Output out(f, "out", out_, shape.axes, shape.ndim);
    if (residual) {
        args.residual = residual.expect_shape_of(out.array()).expect_contiguous_rows().as<float>();
        args.ldr = residual.row_stride();
    }
    out.apart_from(x).apart_from(weight.array).apart_from(bias).apart_from(residual);
    args.y = out.data();
    args.ldy = args.n;
    if (!activation_.is_none()) args.activation = choose(f, "activation", activation_, activations);
    py::object pre_activation;
    if (return_pre_activation) {
        pre_activation = new_floats(shape.axes, shape.ndim);
        args.pre_activation = data_of(pre_activation);
    }
    compute(&KernelTable::linear_forward, args);
    if (return_pre_activation) return py::make_tuple(out.object, pre_activation);
    return out.object;
}

py::object linear_backward(py::handle dy_, py::handle x_, py::handle weight_, py::handle activation_,
                           py::handle pre_activation_, bool need_dx, bool need_dweight, bool need_dbias,
                           py::handle dweight_, py::handle dbias_) {
    const char* const f = "linear_backward";
    LinearBackward args{};
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const Array x = floats(f, "x", x_).expect_contiguous_rows();
    const Weight weight(f, weight_);
    args.n = weight.n;
    args.k = weight.k;
    expect_columns(x, args.k, "last");
    const Shape shape(x, args.n);
    if (dy.ndim != x.ndim || !std::equal(shape.axes, shape.axes + shape.ndim, dy.shape))
        value_error(dy.where.str() + " must have shape " + shape_text(shape.axes, shape.ndim) + ", got " +
                    dy.shape_str());
    args.m = x.rows();
    args.dy = dy.as<float>();
    args.ldy = dy.row_stride();
    args.x = x.as<float>();
    args.ldx = x.row_stride();
    args.panels = weight.panels;
    args.weight = weight.array.as<float>();
    args.ldw = weight.array.ndim ? weight.array.stride[0] : 0;

    Array pre_activation;
    py::object d, block_sums;
    if (!activation_.is_none()) {
        args.activation = choose(f, "activation", activation_, activations);
        if (pre_activation_.is_none())
            value_error(std::string(f) + ": pre_activation must be given with activation, got None");
        pre_activation = floats(f, "pre_activation", pre_activation_).expect_shape_of(dy).expect_contiguous_rows();
        args.pre_activation = pre_activation.as<float>();
        args.ldp = pre_activation.row_stride();
        d = new_floats(shape.axes, shape.ndim);
        args.d = data_of(d);
    } else if (!pre_activation_.is_none()) {
        value_error(std::string(f) + ": pre_activation must be None without an activation");
    }

    py::object dx = py::none(), dweight = py::none(), dbias = py::none();
    if (need_dx) {
        dx = new_floats(x.shape, x.ndim);
        args.dx = data_of(dx);
    }
    if (need_dweight) {
        const i64 weight_shape[] = {args.n, args.k};
        const Output out(f, "dweight", dweight_, weight_shape, 2);
        out.apart_from(dy).apart_from(x).apart_from(weight.array).apart_from(pre_activation);
        args.dweight = out.data();
        args.add_to_dweight = !dweight_.is_none();
        dweight = out.object;
    }
    if (need_dbias) {
        const Output out(f, "dbias", dbias_, &args.n, 1);
        out.apart_from(dy).apart_from(x).apart_from(weight.array).apart_from(pre_activation);
        if (need_dweight) out.apart_from(floats(f, "dweight", dweight));
        args.dbias = out.data();
        args.add_to_dbias = !dbias_.is_none();
        const i64 sums_shape[] = {sum_blocks(args.m), args.n};
        block_sums = new_floats(sums_shape, 2);
        args.block_sums = data_of(block_sums);
        dbias = out.object;
    }
    compute(&KernelTable::linear_backward, args);
    return py::make_tuple(dx, dweight, dbias);
}

}  // namespace

void bind_linear(py::module_& m) {
    m.def("linear", &linear);
    m.def("linear_backward", &linear_backward);
}

}  // namespace fastattn::bindings
