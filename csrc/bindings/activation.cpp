#include "rowwise.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<ActivationFunction> functions[] = {
    {"relu", ActivationFunction::relu},
    {"sigmoid", ActivationFunction::sigmoid},
    {"silu", ActivationFunction::silu},
    {"tanh", ActivationFunction::tanh},
};

}  // namespace

void bind_activation(py::module_& m) {
    m.def("activation", [](py::handle x, py::handle function, py::handle out) {
        ActivationForward args{};
        args.function = choose("activation", "function", function, functions);
        return rowwise("activation", &KernelTable::activation_forward, x, out, args);
    });
    m.def("activation_backward", [](py::handle dy, py::handle x, py::handle function, py::handle out) {
        ActivationBackward args{};
        args.function = choose("activation_backward", "function", function, functions);
        return rowwise_backward("activation_backward", &KernelTable::activation_backward, dy, {"x", x},
                                &ActivationBackward::x, &ActivationBackward::ldx, out, args);
    });
}

}  // namespace fastattn::bindings
