#include "rowwise.h"

namespace fastattn::bindings {

void bind_l2_normalize(py::module_& m) {
    m.def("l2_normalize", [](py::handle x, py::handle eps, py::handle out) {
        L2NormalizeForward args{};
        args.eps = static_cast<float>(not_negative("l2_normalize", "eps", eps));
        return rowwise("l2_normalize", &KernelTable::l2_normalize_forward, x, out, args);
    });
    m.def("l2_normalize_backward", [](py::handle dy, py::handle x, py::handle eps, py::handle out) {
        L2NormalizeBackward args{};
        args.eps = static_cast<float>(not_negative("l2_normalize_backward", "eps", eps));
        return rowwise_backward("l2_normalize_backward", &KernelTable::l2_normalize_backward, dy, {"x", x},
                                &L2NormalizeBackward::x, &L2NormalizeBackward::ldx, out, args);
    });
}

}  // namespace fastattn::bindings
