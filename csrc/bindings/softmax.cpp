#include "rowwise.h"

namespace fastattn::bindings {

void bind_softmax(py::module_& m) {
    m.def("softmax",
          [](py::handle x, py::handle out) { return rowwise("softmax", &KernelTable::softmax_forward, x, out); });
}

}  // namespace fastattn::bindings
