#include "bindings.h"
#include "weight.h"

namespace fastattn::bindings {

constexpr i64 most_columns_read = 65536;  // a thread holds 16 rows

void bind_packing(py::module_& m) {
    py::class_<PackedMatrix>(m, "PackedMatrix",
                             "A weight [N, K], float32, copied into the layout that `linear` reads; immutable.\n\n"
                             "Packing costs about one pass over the weight, which pays off if it is used more than\n"
                             "once. `groups` is 1 for a linear layer. For the recurrent weight weight_hh it is the\n"
                             "number of gates: 4 for an LSTM, 3 for a GRU. `shape`, `dtype` and `nbytes` are as in\n"
                             "arrays; `unpack()` returns a read-only copy [N, K].\n"
                             "Raises TypeError for another dtype, ValueError for another number of axes, a strided\n"
                             "last axis or a number of groups that does not divide N.")
        .def(py::init([](py::handle weight, py::handle groups_) {
                 run_pass();
                 const Array w = floats("PackedMatrix", "weight", weight).expect_ndim(2).expect_contiguous_rows();
                 const i64 groups = integer("PackedMatrix", "groups", groups_);
                 if (groups < 1 || w.shape[0] % groups != 0)
                     value_error("PackedMatrix: groups must divide the " + std::to_string(w.shape[0]) +
                                 " rows of weight, got " + std::to_string(groups));
                 std::unique_ptr<PackedMatrix> packed;
                 without_lock([&] {
                     packed =
                         std::make_unique<PackedMatrix>(w.as<float>(), w.shape[0], w.shape[1], w.stride[0], groups);
                 });
                 return packed;
             }),
             py::arg("weight"), py::arg("groups") = 1)
        .def_static(
            "read",
            [](py::handle matrices_) {
                run_pass();
                const char* const f = "PackedMatrix.read";
                std::vector<StoredMatrix> matrices;
                std::vector<std::size_t> places;
                py::list results;
                for (const py::handle each : items(f, "matrices", matrices_)) {
                    const py::tuple given = items(f, "a matrix", each, 3, 3);
                    StoredMatrix matrix{
                        {}, integer(f, "a number of columns", given[1]), integer(f, "a number of groups", given[2])};
                    i64 rows = 0;
                    for (const py::handle part : items(f, "pieces", given[0])) {
                        const py::tuple piece = items(f, "a piece", part, 3, 3);
                        matrix.pieces.push_back({static_cast<int>(integer(f, "a file", piece[0])),
                                                 integer(f, "an offset", piece[1]),
                                                 integer(f, "a number of rows", piece[2])});
                        if (matrix.pieces.back().offset < 0 || matrix.pieces.back().rows < 0)
                            value_error(std::string(f) + ": an offset and a number of rows must not be negative");
                        rows += matrix.pieces.back().rows;
                    }
                    const bool fits = matrix.k > 0 && matrix.k <= most_columns_read && matrix.groups > 0;
                    if (fits && rows % matrix.groups == 0) {
                        matrices.push_back(std::move(matrix));
                        places.push_back(results.size());
                    }
                    results.append(py::none());
                }
                std::vector<std::unique_ptr<PackedMatrix>> packed;
                without_lock([&] { packed = PackedMatrix::read(matrices); });
                for (std::size_t i = 0; i < places.size(); ++i)
                    if (packed[i]) results[places[i]] = py::cast(std::move(packed[i]));
                return results;
            },
            py::arg("matrices"),
            "Matrices whose rows are in open files: each is (pieces, columns, groups), a piece is (file descriptor,\n"
            "offset in bytes, rows), float32.\n\n"
            "None in the place of a matrix if a file ends before, cannot be read or has a number that is not finite,\n"
            "and for rows of more than 65,536 columns. They share their memory's pages: less time to make them.")
        .def_property_readonly("groups", &PackedMatrix::groups)
        .def_property_readonly("shape", [](const PackedMatrix& w) { return py::make_tuple(w.n(), w.k()); })
        .def_property_readonly("dtype", [](const PackedMatrix&) { return py::dtype::of<float>(); })
        .def_property_readonly("nbytes", [](const PackedMatrix& w) { return w.floats() * i64{sizeof(float)}; })
        .def("unpack",
             [](const PackedMatrix& w) {
                 py::object plain = new_floats({w.n(), w.k()});
                 run_pass();  // it holds NaN until then
                 without_lock([&] { w.unpack(data_of(plain)); });
                 plain.attr("flags").attr("writeable") = false;
                 return plain;
             })
        .def("__repr__", [](const PackedMatrix& w) {
            return "PackedMatrix(shape=(" + std::to_string(w.n()) + ", " + std::to_string(w.k()) + "), dtype=float32)";
        });
}

}  // namespace fastattn::bindings
