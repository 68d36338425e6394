// Kernels that map each row of one array to a row of another: y = f(x), and dx = f(dy, x) or f(dy, y).
#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<Activation> functions[] = {
    {"relu", Activation::relu},
    {"sigmoid", Activation::sigmoid},
    {"silu", Activation::silu},
    {"tanh", Activation::tanh},
};
constexpr Choice<Activation> forms_of_gelu[] = {{"none", Activation::gelu}, {"tanh", Activation::gelu_tanh}};

template <typename Args>
py::object forward(const char* function, void (*KernelTable::*kernel)(const Args&), py::handle x_, py::handle out_,
                   Args args = {}) {
    const Array x = floats(function, "x", x_).expect_contiguous_rows();
    set_rows(args, x);
    const Output out(function, "out", out_, x.shape);
    args.y = out.apart_from(x, true).data();
    compute(kernel, args);
    return out.object;
}

// `name` is the function's name for the saved array.
template <typename Args>
py::object backward(const char* function, void (*KernelTable::*kernel)(const Args&), py::handle dy_, const char* name,
                    py::handle saved_, py::handle out_, Args args = {}) {
    const Array dy = floats(function, "dy", dy_).expect_contiguous_rows();
    const Array saved = floats(function, name, saved_).expect_contiguous_rows().expect_shape(dy.shape);
    args.dy = dy.as<float>();
    args.saved = saved.as<float>();
    args.rows = dy.rows();
    args.dim = dy.last();
    args.lddy = dy.row_stride();
    args.lds = saved.row_stride();
    const Output out(function, "out", out_, dy.shape);
    args.dx = out.apart_from(dy, true).apart_from(saved, true).data();
    compute_now(kernel, args);
    return out.object;
}

// A function whose second argument chooses the activation, and its gradient.
template <std::size_t N>
void bind_activation(py::module_& m, const char* f, const char* b, const char* argument,
                     const Choice<Activation> (&choices)[N]) {
    m.def(f, [=, &choices](py::handle x, py::handle choice, py::handle out) {
        ActivationForward args{};
        args.activation = choose(f, argument, choice, choices);
        return forward(f, &KernelTable::activation_forward, x, out, args);
    });
    m.def(b, [=, &choices](py::handle dy, py::handle x, py::handle choice, py::handle out) {
        ActivationBackward args{};
        args.activation = choose(b, argument, choice, choices);
        return backward(b, &KernelTable::activation_backward, dy, "x", x, out, args);
    });
}

}  // namespace

void bind_rowwise(py::module_& m) {
    bind_activation(m, "activation", "activation_backward", "function", functions);
    bind_activation(m, "gelu", "gelu_backward", "approximate", forms_of_gelu);
    m.def("softmax",
          [](py::handle x, py::handle out) { return forward("softmax", &KernelTable::softmax_forward, x, out); });
    m.def("softmax_backward", [](py::handle dy, py::handle y, py::handle out) {
        return backward("softmax_backward", &KernelTable::softmax_backward, dy, "y", y, out);
    });
    m.def("log_softmax", [](py::handle x, py::handle out) {
        return forward("log_softmax", &KernelTable::log_softmax_forward, x, out);
    });
    m.def("log_softmax_backward", [](py::handle dy, py::handle y, py::handle out) {
        return backward("log_softmax_backward", &KernelTable::log_softmax_backward, dy, "y", y, out);
    });
    m.def("l2_normalize", [](py::handle x, py::handle eps, py::handle out) {
        L2NormalizeForward args{};
        args.eps = static_cast<float>(not_negative("l2_normalize", "eps", eps));
        return forward("l2_normalize", &KernelTable::l2_normalize_forward, x, out, args);
    });
    m.def("l2_normalize_backward", [](py::handle dy, py::handle x, py::handle eps, py::handle out) {
        L2NormalizeBackward args{};
        args.eps = static_cast<float>(not_negative("l2_normalize_backward", "eps", eps));
        return backward("l2_normalize_backward", &KernelTable::l2_normalize_backward, dy, "x", x, out, args);
    });
}

}  // namespace fastattn::bindings
