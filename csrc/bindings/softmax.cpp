#include "rowwise.h"

namespace fastattn::bindings {

void bind_softmax(py::module_& m) {
    m.def("softmax",
          [](py::handle x, py::handle out) { return rowwise("softmax", &KernelTable::softmax_forward, x, out); });
    m.def("softmax_backward", [](py::handle dy, py::handle y, py::handle out) {
        return rowwise_backward("softmax_backward", &KernelTable::softmax_backward, dy, {"y", y}, &SoftmaxBackward::y,
                                &SoftmaxBackward::ldy, out);
    });
}

}  // namespace fastattn::bindings
