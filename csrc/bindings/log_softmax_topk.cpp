#include <limits>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr i64 most_columns = (i64{1} << 31) - 1;  // half of what the kernel's keys have room for

// In [0, columns), ascending within a row of `ends`.
Copy<i64> ascending_ids(const Array& array, const std::int32_t* ends, i64 columns) {
    i64 row = 0, at = 0, last = -1, before = -1;
    return checked_copy<i64>(
        array,
        [&](i64 id) {
            before = last;
            for (; at >= ends[row + 1]; ++row) before = -1;
            ++at;
            last = id;
            return id > before && id < columns;
        },
        [&](i64 id, i64 i) {
            if (id < 0 || id >= columns)
                value_error(array.where.str() + " must be in [0, " + std::to_string(columns) +
                            "), the columns of x, got " + std::to_string(id) + " at index " + std::to_string(i));
            value_error(array.where.str() + " must ascend within a row, got " + std::to_string(before) + " then " +
                        std::to_string(id) + " at index " + std::to_string(i));
        });
}

// A kernel would take a denormal for 0.
void expect_factors(const Array& factors) {
    factors.expect_contiguous();
    const float* const values = factors.as<float>();
    for (i64 i = 0; i < factors.shape[0]; ++i)
        if (!(values[i] >= std::numeric_limits<float>::min()))
            value_error(factors.where.str() + " must be positive normal numbers, got " + shown(py::float_(values[i])) +
                        " at index " + std::to_string(i));
}

py::object log_softmax_topk(py::handle x_, py::handle k, py::handle ids_, py::handle cu_ids_, py::handle factors_) {
    const char* const f = "log_softmax_topk";
    const Array x = floats(f, "x", x_).expect_ndim(2).expect_contiguous_rows();
    LogSoftmaxTopkForward args{};
    set_rows(args, x);
    if (args.dim > most_columns)
        value_error(x.where.str() + " must have at most " + std::to_string(most_columns) + " columns, got shape " +
                    x.shape.str());
    args.k = integer(f, "k", k);
    if (args.k < 1 || args.k > args.dim)
        value_error(std::string(f) + ": k must be from 1 to " + std::to_string(args.dim) + ", the columns of x, got " +
                    std::to_string(args.k));
    const Array ids = optional_array(f, "ids", ids_, Dtype::int64);
    const Array cu_ids = optional_array(f, "cu_ids", cu_ids_, Dtype::int32);
    const Array factors = optional_floats(f, "factors", factors_);
    Copy<std::int32_t> ends;
    Copy<i64> columns;
    if (ids || cu_ids || factors) {
        for (const auto& [given, name] : {std::pair{&ids, "ids"}, {&cu_ids, "cu_ids"}, {&factors, "factors"}})
            if (!*given) value_error(std::string(f) + ": ids, cu_ids and factors go together, got no " + name);
        ids.expect_ndim(1);
        ends = cu_seqlens(cu_ids.expect_shape({args.rows + 1}), ids.shape[0], "ids");
        columns = ascending_ids(ids, ends.get(), args.dim);
        expect_factors(factors.expect_shape(ids.shape));
        args.ids = columns.get();
        args.cu_ids = ends.get();
        args.factors = factors.as<float>();
    }
    const Output values(f, "values", py::none(), {args.rows, args.k});
    py::array_t<i64> indices({args.rows, args.k});
    args.values = values.data();
    args.indices = indices.mutable_data();
    if (Pass* const pass = Pass::current()) {
        pass->keep(indices);
        pass->poison(args.indices, static_cast<std::size_t>(indices.nbytes()));
    }
    compute(&KernelTable::log_softmax_topk_forward, args);
    return py::make_tuple(values.object, indices);
}

}  // namespace

void bind_log_softmax_topk(py::module_& m) { m.def("log_softmax_topk", &log_softmax_topk); }

}  // namespace fastattn::bindings
