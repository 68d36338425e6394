#include "bindings.h"

namespace fastattn::bindings {
namespace {

// Computes y, or dx from dy, by `run(args)`.
template <typename Args, typename Run>
py::object rotary(const char* f, const char* name, py::handle x_, py::handle position_ids_, py::handle table_,
                  py::handle out_, const Run& run) {
    const Array x = floats(f, name, x_).expect_ndim(4).expect_contiguous_rows();
    Args args{};
    args.x = x.as<float>();
    args.tokens = x.shape[0];
    args.parts = x.shape[1];
    args.heads = x.shape[2];
    args.dim = x.shape[3];
    args.token_stride = x.stride[0];
    args.part_stride = x.stride[1];
    args.head_stride = x.stride[2];
    if (args.parts < 2 || args.dim % 2)
        value_error(x.where.str() + " must have queries and keys, and heads of an even size, got shape " +
                    x.shape.str());
    const Array table = floats(f, "table", table_).expect_ndim(2).expect_contiguous_rows();
    table.expect_shape({table.shape[0], args.dim});
    args.table = table.as<float>();
    args.ldt = table.stride[0];
    const Array position_ids = array(f, "position_ids", position_ids_, Dtype::int64).expect_shape({args.tokens});
    const Copy<i64> places = ids(position_ids, table.shape[0], "table");
    args.position_ids = places.get();
    const Output out(f, "out", out_, x.shape);
    args.y = out.apart_from(x, true).apart_from(table).apart_from(position_ids).data();
    run(args);
    return out.object;
}

}  // namespace

void bind_rotary_embedding(py::module_& m) {
    m.def("rotary_embedding", [](py::handle x, py::handle position_ids, py::handle table, py::handle out) {
        return rotary<RotaryEmbeddingForward>(
            "rotary_embedding", "x", x, position_ids, table, out,
            [](const auto& args) { compute(&KernelTable::rotary_embedding_forward, args); });
    });
    m.def("rotary_embedding_backward", [](py::handle dy, py::handle position_ids, py::handle table, py::handle out) {
        return rotary<RotaryEmbeddingBackward>(
            "rotary_embedding_backward", "dy", dy, position_ids, table, out,
            [](const auto& args) { compute_now(&KernelTable::rotary_embedding_backward, args); });
    });
}

}  // namespace fastattn::bindings
