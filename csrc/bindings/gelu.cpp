#include "rowwise.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<bool> forms[] = {{"none", false}, {"tanh", true}};

}  // namespace

void bind_gelu(py::module_& m) {
    m.def("gelu", [](py::handle x, py::handle approximate, py::handle out) {
        GeluForward args{};
        args.tanh = choose("gelu", "approximate", approximate, forms);
        return rowwise("gelu", &KernelTable::gelu_forward, x, out, args);
    });
    m.def("gelu_backward", [](py::handle dy, py::handle x, py::handle approximate, py::handle out) {
        GeluBackward args{};
        args.tanh = choose("gelu_backward", "approximate", approximate, forms);
        return rowwise_backward("gelu_backward", &KernelTable::gelu_backward, dy, {"x", x}, &GeluBackward::x,
                                &GeluBackward::ldx, out, args);
    });
}

}  // namespace fastattn::bindings
