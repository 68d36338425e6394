#include "bindings.h"

namespace fastattn::bindings {
namespace {

// The arguments that both passes share. Every target is a class or ignore_index. The caller keeps the result, the
// targets, for as long as args.
template <typename Args>
Copy<i64> fill(Args& args, const char* f, const Array& logits, const Array& target, py::handle ignore_index,
               py::handle label_smoothing) {
    logits.expect_ndim(2).expect_contiguous_rows();
    args.logits = logits.as<float>();
    args.rows = logits.shape[0];
    args.classes = logits.shape[1];
    args.ldx = logits.row_stride();
    args.ignore_index = integer(f, "ignore_index", ignore_index);
    Copy<i64> targets = checked_copy<i64>(
        target.expect_shape({args.rows}),
        [&](i64 value) { return (value >= 0 && value < args.classes) || value == args.ignore_index; },
        [&](i64 value, i64 i) {
            value_error(target.where.str() + " must be in [0, " + std::to_string(args.classes) + ") or ignore_index (" +
                        std::to_string(args.ignore_index) + "), got " + std::to_string(value) + " at index " +
                        std::to_string(i));
        });
    args.target = targets.get();
    const double smoothing = not_negative(f, "label_smoothing", label_smoothing);
    if (smoothing > 1)
        value_error(std::string(f) + ": label_smoothing must be in [0, 1], got " + shown(label_smoothing));
    args.label_smoothing = static_cast<float>(smoothing);
    return targets;
}

py::object cross_entropy(py::handle logits_, py::handle target_, py::handle ignore_index, py::handle label_smoothing) {
    const char* const f = "cross_entropy";
    CrossEntropyForward args{};
    const Array logits = floats(f, "logits", logits_), target = array(f, "target", target_, Dtype::int64);
    const auto targets = fill(args, f, logits, target, ignore_index, label_smoothing);
    const Output loss(f, "loss", py::none(), {args.rows});
    py::array_t<double> lse(args.rows);
    args.loss = loss.data();
    args.lse = lse.mutable_data();
    if (Pass* const pass = Pass::current()) {
        pass->keep(lse);
        pass->poison(args.lse, static_cast<std::size_t>(lse.nbytes()));
    }
    compute(&KernelTable::cross_entropy_forward, args);
    return py::make_tuple(loss.object, lse);
}

py::object cross_entropy_backward(py::handle dloss_, py::handle logits_, py::handle target_, py::handle lse_,
                                  py::handle ignore_index, py::handle label_smoothing, py::handle out_) {
    const char* const f = "cross_entropy_backward";
    CrossEntropyBackward args{};
    const Array dloss = floats(f, "dloss", dloss_), logits = floats(f, "logits", logits_);
    const Array target = array(f, "target", target_, Dtype::int64), lse = array(f, "lse", lse_, Dtype::float64);
    const auto targets = fill(args, f, logits, target, ignore_index, label_smoothing);
    args.dloss = dloss.expect_shape({args.rows}).expect_contiguous().as<float>();
    args.lse = lse.expect_shape({args.rows}).expect_contiguous().as<double>();
    const Output out(f, "out", out_, logits.shape);
    args.dlogits = out.apart_from(logits, true).apart_from(dloss).apart_from(target).apart_from(lse).data();
    compute_now(&KernelTable::cross_entropy_backward, args);
    return out.object;
}

}  // namespace

void bind_cross_entropy(py::module_& m) {
    m.def("cross_entropy", &cross_entropy);
    m.def("cross_entropy_backward", &cross_entropy_backward);
}

}  // namespace fastattn::bindings
