#include "../dispatch.h"
#include "../memory.h"
#include "../parallel.h"
#include "bindings.h"

namespace py = pybind11;

// Another interpreter of this process would wait forever in pybind11's first step, so it is refused before that.
#define PyInit__core init_in_the_main_interpreter
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    using namespace fastattn::bindings;
    m.doc() = "The compiled kernels. Use fastattn.kernels: it has the documentation.";
    try {
        fastattn::choose_isa_from_environment();
        fastattn::choose_num_threads();
    } catch (const std::invalid_argument& error) {
        throw py::import_error(std::string("fastattn: ") + error.what());
    }
    fastattn::make_fork_safe();
    fastattn::make_memory_fork_safe();
    bind_runtime(m);
    bind_pass(m);
    bind_profile(m);
    bind_packing(m);
    bind_linear(m);
    bind_scaled_dot_product_attention(m);
    bind_layer_norm(m);
    bind_rowwise(m);
    bind_log_softmax_topk(m);
    bind_embedding(m);
    bind_gated_activation(m);
    bind_rotary_embedding(m);
    bind_scatter_rows(m);
    bind_char_cnn(m);
    bind_highway(m);
    bind_pooling(m);
    bind_cross_entropy(m);
    bind_crf(m);
    bind_crf_viterbi(m);
    bind_recurrent(m);
    bind_lstm(m);
    bind_gru(m);
    bind_dropout(m);
    bind_adamw(m);
    bind_sgd(m);
    bind_gradient_norm(m);
}
#undef PyInit__core

extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (PyInterpreterState_Get() == PyInterpreterState_Main()) return init_in_the_main_interpreter();
    PyErr_SetString(PyExc_ImportError, "fastattn: only the main interpreter of a process can import it");
    return nullptr;
}
