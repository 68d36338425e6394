#include "rowwise.h"

namespace fastattn::bindings {

void bind_log_softmax(py::module_& m) {
    m.def("log_softmax", [](py::handle x, py::handle out) {
        return rowwise("log_softmax", &KernelTable::log_softmax_forward, x, out);
    });
    m.def("log_softmax_backward", [](py::handle dy, py::handle y, py::handle out) {
        return rowwise_backward("log_softmax_backward", &KernelTable::log_softmax_backward, dy, {"y", y},
                                &LogSoftmaxBackward::y, &LogSoftmaxBackward::ldy, out);
    });
}

}  // namespace fastattn::bindings
