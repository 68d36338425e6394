#include "bindings.h"

namespace fastattn::bindings {
namespace {

void sgd(py::handle param_, py::handle grad_, py::handle momentum_buffer_, py::handle lr, py::handle momentum_,
         py::handle dampening, py::handle weight_decay, py::handle nesterov, py::handle first) {
    const char* const f = "sgd";
    const Array grad = floats(f, "grad", grad_).expect_contiguous();
    const Array like = floats(f, "param", param_);
    grad.expect_shape(like.shape);
    const Output param(f, "param", param_, like.shape);
    param.apart_from(grad);
    SgdForward args{};
    args.momentum = static_cast<float>(not_negative(f, "momentum", momentum_));
    if (args.momentum > 0) {
        if (momentum_buffer_.is_none())
            value_error(std::string(f) + ": momentum_buffer must be given with momentum " + shown(momentum_));
        const Output buffer(f, "momentum_buffer", momentum_buffer_, like.shape);
        args.momentum_buffer = buffer.apart_from(grad).apart_from(param.array()).data();
    }
    args.param = param.data();
    args.grad = grad.as<float>();
    args.count = like.size();
    args.lr = static_cast<float>(not_negative(f, "lr", lr));
    args.one_minus_dampening = static_cast<float>(1 - not_negative(f, "dampening", dampening));
    args.weight_decay = static_cast<float>(not_negative(f, "weight_decay", weight_decay));
    args.nesterov = boolean(f, "nesterov", nesterov);
    args.first = boolean(f, "first", first);
    compute_now(&KernelTable::sgd_forward, args);
}

}  // namespace

void bind_sgd(py::module_& m) { m.def("sgd", &sgd); }

}  // namespace fastattn::bindings
