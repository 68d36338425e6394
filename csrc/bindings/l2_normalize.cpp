#include "rowwise.h"

namespace fastattn::bindings {

void bind_l2_normalize(py::module_& m) {
    m.def("l2_normalize", [](py::handle x, py::handle eps, py::handle out) {
        L2NormalizeForward args{};
        args.eps = static_cast<float>(not_negative("l2_normalize", "eps", eps));
        return rowwise("l2_normalize", &KernelTable::l2_normalize_forward, x, out, args);
    });
}

}  // namespace fastattn::bindings
