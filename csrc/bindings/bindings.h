// One function per file: each adds its kernels to the module.
#pragma once

#include "arrays.h"

namespace fastattn::bindings {

void bind_runtime(py::module_& m);
void bind_pass(py::module_& m);
void bind_profile(py::module_& m);
void bind_packing(py::module_& m);
void bind_linear(py::module_& m);
void bind_scaled_dot_product_attention(py::module_& m);
void bind_layer_norm(py::module_& m);
void bind_rowwise(py::module_& m);
void bind_log_softmax_topk(py::module_& m);
void bind_embedding(py::module_& m);
void bind_gated_activation(py::module_& m);
void bind_rotary_embedding(py::module_& m);
void bind_scatter_rows(py::module_& m);
void bind_char_cnn(py::module_& m);
void bind_highway(py::module_& m);
void bind_pooling(py::module_& m);
void bind_cross_entropy(py::module_& m);
void bind_crf(py::module_& m);
void bind_crf_viterbi(py::module_& m);
void bind_recurrent(py::module_& m);
void bind_lstm(py::module_& m);
void bind_gru(py::module_& m);
void bind_dropout(py::module_& m);
void bind_adamw(py::module_& m);
void bind_sgd(py::module_& m);
void bind_gradient_norm(py::module_& m);

}  // namespace fastattn::bindings
