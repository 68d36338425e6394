#include "bindings.h"

namespace fastattn::bindings {
namespace {

struct Lookup {  // ids and the table that they index, both given or neither
    Array indices, table;
    Copy<i64> ids;
    const float* weight = nullptr;
    i64 stride = 0;
};

Lookup lookup(const char* f, const char* ids_name, py::handle ids_, const char* table_name, py::handle table_, i64 dim,
              i64 tokens) {
    Lookup result;
    if (ids_.is_none() && table_.is_none()) return result;
    if (ids_.is_none()) value_error(std::string(f) + ": " + ids_name + " must be given with " + table_name);
    if (table_.is_none()) value_error(std::string(f) + ": " + table_name + " must be given with " + ids_name);
    result.table = floats(f, table_name, table_).expect_ndim(2).expect_contiguous_rows();
    if (dim >= 0 && result.table.shape[1] != dim) result.table.expect_shape({result.table.shape[0], dim});
    result.weight = result.table.as<float>();
    result.stride = result.table.stride[0];
    result.indices = array(f, ids_name, ids_, Dtype::int64).expect_ndim(1);
    if (tokens >= 0) result.indices.expect_shape({tokens});
    result.ids = ids(result.indices, result.table.shape[0], table_name);
    return result;
}

py::object embedding(py::handle input_ids_, py::handle weight_, py::handle position_ids_, py::handle position_weight_,
                     py::handle token_type_ids_, py::handle token_type_weight_, py::handle scale,
                     py::handle norm_weight_, py::handle norm_bias_, py::handle eps, py::handle out_) {
    const char* const f = "embedding";
    if (input_ids_.is_none()) array(f, "input_ids", input_ids_, Dtype::int64);
    if (weight_.is_none()) floats(f, "weight", weight_);
    EmbeddingForward args{};
    const Lookup word = lookup(f, "input_ids", input_ids_, "weight", weight_, -1, -1);
    args.input_ids = word.ids.get();
    args.weight = word.weight;
    args.ldw = word.stride;
    args.tokens = word.indices.shape[0];
    args.dim = word.table.shape[1];
    const Lookup position =
        lookup(f, "position_ids", position_ids_, "position_weight", position_weight_, args.dim, args.tokens);
    args.position_ids = position.ids.get();
    args.position_weight = position.weight;
    args.ldp = position.stride;
    const Lookup type =
        lookup(f, "token_type_ids", token_type_ids_, "token_type_weight", token_type_weight_, args.dim, args.tokens);
    args.token_type_ids = type.ids.get();
    args.token_type_weight = type.weight;
    args.ldt = type.stride;
    args.scale = static_cast<float>(positive(f, "scale", scale));
    const Array norm_weight = optional_floats(f, "norm_weight", norm_weight_);
    const Array norm_bias = optional_floats(f, "norm_bias", norm_bias_);
    if (norm_bias && !norm_weight) value_error(std::string(f) + ": norm_weight must be given with norm_bias");
    if (norm_weight) args.norm_weight = norm_weight.expect_shape({args.dim}).expect_contiguous().as<float>();
    if (norm_bias) args.norm_bias = norm_bias.expect_shape({args.dim}).expect_contiguous().as<float>();
    args.eps = static_cast<float>(not_negative(f, "eps", eps));
    const Output out(f, "out", out_, {args.tokens, args.dim});
    for (const Array* input : {&word.indices, &word.table, &position.indices, &position.table, &type.indices,
                               &type.table, &norm_weight, &norm_bias})
        out.apart_from(*input);
    args.y = out.data();
    compute(&KernelTable::embedding_forward, args);
    return out.object;
}

py::object embedding_backward(py::handle dy_, py::handle input_ids_, py::handle num_embeddings, py::handle padding_idx,
                              py::handle dweight_) {
    const char* const f = "embedding_backward";
    EmbeddingBackward args{};
    const Array dy = floats(f, "dy", dy_).expect_ndim(2).expect_contiguous_rows();
    args.dy = dy.as<float>();
    args.tokens = dy.shape[0];
    args.dim = dy.shape[1];
    args.lddy = dy.row_stride();
    const Shape shape{integer(f, "num_embeddings", num_embeddings), args.dim};
    if (shape[0] < 0)
        value_error(std::string(f) + ": num_embeddings must not be negative, got " + std::to_string(shape[0]));
    const Array input_ids = array(f, "input_ids", input_ids_, Dtype::int64).expect_shape({args.tokens});
    const Copy<i64> checked_ids = ids(input_ids, shape[0], "dweight");
    args.input_ids = checked_ids.get();
    args.padding_idx = -1;
    if (!padding_idx.is_none()) {
        args.padding_idx = integer(f, "padding_idx", padding_idx);
        if (args.padding_idx < 0 || args.padding_idx >= shape[0])
            value_error(std::string(f) + ": padding_idx must be in [0, " + std::to_string(shape[0]) +
                        "), the rows of dweight, got " + std::to_string(args.padding_idx));
    }
    const Output dweight = accumulator(f, "dweight", dweight_, shape);
    args.dweight = dweight.apart_from(dy).apart_from(input_ids).data();
    compute_now(&KernelTable::embedding_backward, args);
    return dweight.object;
}

}  // namespace

void bind_embedding(py::module_& m) {
    m.def("embedding", &embedding);
    m.def("embedding_backward", &embedding_backward);
}

}  // namespace fastattn::bindings
