// Shared by the bindings of linear layers: a product with a weight and its gradients; the names of activations.
#pragma once

#include "weight.h"

namespace fastattn::bindings {

inline constexpr Choice<Activation> activations[] = {
    {"relu", Activation::relu}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
    {"silu", Activation::silu}, {"tanh", Activation::tanh},
};

// x [..., k] and a weight [n, k]
struct LinearOperands {
    LinearOperands(const char* function, py::handle x, py::handle weight, bool any_element = false);
    template <typename Args>
    void fill(Args& args) const {
        args.x = x.as<float>();
        args.weight = weight.view();
        args.m = x.rows();
        args.n = weight.n;
        args.k = weight.k;
        args.ldx = x.row_stride();
    }
    Array x;
    Weight weight;
    Shape projection;  // [..., n], the shape of x W^T
};

// The requested gradients of a linear layer: a new array for x; weight and bias are added to the given arrays, if any.
struct LinearGradients {
    LinearGradients(const char* function, LinearBackward& args, const Array& x, Occupied occupied, py::handle need_dx,
                    py::handle need_dweight, py::handle need_dbias, py::handle dweight, py::handle dbias);
    py::object tuple() const { return py::make_tuple(dx, dweight, dbias); }
    py::object dx = py::none(), dweight = py::none(), dbias = py::none();

private:
    py::object block_sums_;
};

}  // namespace fastattn::bindings
