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
}

}  // namespace fastattn::bindings
