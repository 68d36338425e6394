#include "rowwise.h"

namespace fastattn::bindings {

void bind_log_softmax(py::module_& m) {
    m.def("log_softmax", [](py::handle x, py::handle out) {
        return rowwise("log_softmax", &KernelTable::log_softmax_forward, x, out);
    });
}

}  // namespace fastattn::bindings
