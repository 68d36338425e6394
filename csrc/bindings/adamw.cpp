#include <cmath>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

void adamw(py::handle param_, py::handle grad_, py::handle exp_avg_, py::handle exp_avg_sq_, py::handle step_,
           py::handle lr_, py::handle beta1_, py::handle beta2_, py::handle eps, py::handle weight_decay_,
           py::handle decoupled_) {
    const char* const f = "adamw";
    const Array grad = floats(f, "grad", grad_).expect_contiguous();
    const Array like = floats(f, "param", param_);
    grad.expect_shape(like.shape);
    floats(f, "exp_avg", exp_avg_);  // None would be a new array
    floats(f, "exp_avg_sq", exp_avg_sq_);
    const Output param(f, "param", param_, like.shape), exp_avg(f, "exp_avg", exp_avg_, like.shape),
        exp_avg_sq(f, "exp_avg_sq", exp_avg_sq_, like.shape);
    param.apart_from(grad);
    exp_avg.apart_from(grad).apart_from(param.array());
    exp_avg_sq.apart_from(grad).apart_from(param.array()).apart_from(exp_avg.array());
    const i64 step = integer(f, "step", step_);
    if (step < 1) value_error(std::string(f) + ": step must be at least 1, got " + std::to_string(step));
    const double lr = not_negative(f, "lr", lr_), weight_decay = not_negative(f, "weight_decay", weight_decay_);
    const double beta1 = fraction(f, "beta1", beta1_), beta2 = fraction(f, "beta2", beta2_);
    const double steps = static_cast<double>(step);
    AdamwForward args{};
    args.param = param.data();
    args.grad = grad.as<float>();
    args.exp_avg = exp_avg.data();
    args.exp_avg_sq = exp_avg_sq.data();
    args.count = like.size();
    const bool decoupled = boolean(f, "decoupled", decoupled_);
    args.decay = decoupled ? static_cast<float>(lr * weight_decay) : 0.0f;
    args.l2 = decoupled ? 0.0f : static_cast<float>(weight_decay);
    args.from_grad = beta1 < 0.5;
    args.beta1_step = static_cast<float>(args.from_grad ? beta1 : 1 - beta1);
    args.beta2 = static_cast<float>(beta2);
    args.one_minus_beta2 = static_cast<float>(1 - beta2);
    args.step_size = static_cast<float>(lr / (1 - std::pow(beta1, steps)));
    args.root_scale = static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, steps)));
    args.eps = static_cast<float>(not_negative(f, "eps", eps));
    compute_now(&KernelTable::adamw_forward, args);
}

}  // namespace

void bind_adamw(py::module_& m) { m.def("adamw", &adamw); }

}  // namespace fastattn::bindings
