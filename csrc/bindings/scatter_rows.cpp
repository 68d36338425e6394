#include "bindings.h"

namespace fastattn::bindings {
namespace {

// Threads write the rows at the same time.
void expect_distinct(const Array& array, const i64* rows) {
    const i64 count = array.shape[0];
    if (std::adjacent_find(rows, rows + count, [](i64 a, i64 b) { return a >= b; }) == rows + count) return;
    std::vector<i64> sorted(rows, rows + count);
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end())
        value_error(array.where.str() + " must be distinct, got " + std::to_string(*twice) + " twice");
}

py::object scatter_rows(py::handle x_, py::handle rows_, py::handle into_) {
    const char* const f = "scatter_rows";
    const Array x = floats(f, "x", x_).expect_ndim(2).expect_contiguous_rows();
    const Array given = floats(f, "into", into_).expect_ndim(2);
    const Output into(f, "into", into_, {given.shape[0], x.shape[1]});
    const Array rows = array(f, "rows", rows_, Dtype::int64).expect_shape({x.shape[0]});
    const Copy<i64> places = ids(rows, given.shape[0], "into");
    expect_distinct(rows, places.get());
    ScatterRowsForward args{};
    args.into = into.apart_from(x).apart_from(rows).data();
    args.dim = x.shape[1];
    args.x = x.as<float>();
    args.ldx = x.row_stride();
    args.rows = places.get();
    args.count = x.shape[0];
    compute(&KernelTable::scatter_rows_forward, args);
    return into.object;
}

}  // namespace

void bind_scatter_rows(py::module_& m) { m.def("scatter_rows", &scatter_rows); }

}  // namespace fastattn::bindings
