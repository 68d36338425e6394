#include <algorithm>
#include <cstdint>
#include <optional>

#include "bindings.h"
#include "weight.h"

namespace fastattn::bindings {

constexpr i64 most_columns_read = 65536;  // a thread holds 16 rows

namespace {

bool is_finite(float x) { return x - x == 0; }

void expect_all(const Array& array, bool (*good)(float), const char* wanted) {
    const i64 columns = array.last();
    for (i64 row = 0; row < array.rows(); ++row) {
        const float* const values = array.as<float>() + row * (array.shape.ndim > 1 ? array.stride[0] : columns);
        const float* const bad = std::find_if_not(values, values + columns, good);
        if (bad != values + columns)
            value_error(array.where.str() + " must be " + wanted + ", got " + std::to_string(*bad) + " at " +
                        (array.shape.ndim > 1 ? std::to_string(row) + ", " : "") + std::to_string(bad - values));
    }
}

Array scales_of_input(py::handle given, Element element, i64 k) {
    const Array scales = optional_floats("PackedMatrix", "input_scales", given);
    if (!scales) return scales;
    if (element != Element::int8) value_error("PackedMatrix: input_scales are for dtype 'int8'");
    scales.expect_shape({k}).expect_contiguous();
    expect_all(scales, [](float x) { return x > 0 && is_finite(x); }, "positive and finite");
    return scales;
}

void expect_columns_of_bytes(const Array& weight) {
    if (weight.last() > most_columns_of_bytes)
        value_error(weight.where.str() + " must have at most " + std::to_string(most_columns_of_bytes) +
                    " columns as int8, got " + std::to_string(weight.last()));
}

void expect_quantizable(const Array& weight, const Array& input_scales, Element element, i64 groups) {
    if (groups != 1)
        value_error("PackedMatrix: groups must be 1 for dtype '" + std::string(name_of(element)) + "', got " +
                    std::to_string(groups));
    if (element == Element::int8) expect_columns_of_bytes(weight);
    expect_all(weight, is_finite, "finite");
    if (!input_scales) return;
    const float* const scales = input_scales.as<float>();
    for (i64 row = 0; row < weight.shape[0]; ++row)
        for (i64 i = 0; i < weight.shape[1]; ++i)
            if (!is_finite(weight.as<float>()[row * weight.stride[0] + i] / scales[i]))
                value_error("PackedMatrix: weight divided by input_scales must be finite, is not at " +
                            std::to_string(row) + ", " + std::to_string(i));
}

template <typename T>
py::array_t<T> new_array(std::initializer_list<i64> shape) {
    return py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

py::object floats_of(const std::vector<float>& values) {
    py::array_t<float> array = new_array<float>({static_cast<i64>(values.size())});
    std::copy(values.begin(), values.end(), array.mutable_data());
    return array;
}

py::dict numbers(py::handle self) {
    const PackedMatrix& w = self.cast<const PackedMatrix&>();
    py::dict result;
    if (w.element() == Element::float32) {
        result["weight"] = self.attr("unpack")();
    } else if (w.element() == Element::bfloat16) {
        py::array_t<std::uint16_t> bits = new_array<std::uint16_t>({w.n(), w.k()});
        w.copy_bfloat16(bits.mutable_data());
        result["weight"] = bits;
    } else {
        py::array_t<std::int8_t> bytes = new_array<std::int8_t>({w.n(), w.k()});
        w.copy_bytes(bytes.mutable_data());
        result["weight"] = bytes;
        result["scales"] = floats_of(w.scales());
        if (!w.input_scales().empty()) result["input_scales"] = floats_of(w.input_scales());
    }
    return result;
}

std::unique_ptr<PackedMatrix> of_numbers(py::handle weight_, py::handle scales_, py::handle input_scales_) {
    run_pass();
    const char* const f = "PackedMatrix.of_numbers";
    const bool bytes = is_array_of(weight_, Dtype::int8), halves = is_array_of(weight_, Dtype::uint16);
    const Dtype dtype = bytes ? Dtype::int8 : halves ? Dtype::uint16 : Dtype::float32;
    const Array weight = array(f, "weight", weight_, dtype).expect_ndim(2).expect_contiguous();
    const i64 n = weight.shape[0], k = weight.shape[1];
    if (!bytes && !(scales_.is_none() && input_scales_.is_none()))
        value_error(std::string(f) + ": scales are for a weight of int8");
    std::unique_ptr<PackedMatrix> result;
    if (halves) {
        constexpr std::uint16_t exponent = 0x7f80;
        const std::uint16_t* const bits = weight.as<std::uint16_t>();
        if (std::any_of(bits, bits + n * k, [](std::uint16_t x) { return (x & exponent) == exponent; }))
            value_error(std::string(f) + ": weight must be finite");
        without_lock([&] { result = std::make_unique<PackedMatrix>(PackedMatrix::of_bfloat16(bits, n, k)); });
    } else if (!bytes) {
        without_lock([&] { result = std::make_unique<PackedMatrix>(weight.as<float>(), n, k, k); });
    } else {
        expect_columns_of_bytes(weight);
        const Array scales = floats(f, "scales", scales_).expect_shape({n}).expect_contiguous();
        expect_all(scales, [](float x) { return x >= 0 && is_finite(x); }, "finite and not negative");
        const Array input_scales = scales_of_input(input_scales_, Element::int8, k);
        std::optional<PackedMatrix> made;
        without_lock([&] {
            made = PackedMatrix::of_bytes(weight.as<std::int8_t>(), n, k, scales.as<float>(), input_scales.as<float>());
        });
        if (!made)
            value_error(std::string(f) + ": the absolute integers of columns 8i + {0, 1, 4, 5} and 8i + {2, 3, 6, 7} " +
                        "of weight must sum to at most 128 in each row");
        result = std::make_unique<PackedMatrix>(std::move(*made));
    }
    return result;
}

}  // namespace

void bind_packing(py::module_& m) {
    py::class_<PackedMatrix>(
        m, "PackedMatrix",
        "A weight [N, K], float32, copied into the layout that `linear` reads; immutable.\n\n"
        "Packing costs about one pass over the weight, which pays off if it is used more than\n"
        "once. `groups` is 1 for a linear layer. For the recurrent weight weight_hh it is the\n"
        "number of gates: 4 for an LSTM, 3 for a GRU.\n\n"
        "`dtype` is what the copy holds. \"bfloat16\" rounds each weight to the nearest bfloat16:\n"
        "half the memory, and the bits of `linear` with those float32. \"int8\" holds integers and a\n"
        "scale for each row: a quarter of the memory, and `linear` then quantizes each row of x to\n"
        "bytes, affine, from its own minimum to its own maximum. The integer sums are exact, so the\n"
        "result is the same on every instruction set, save for an activation. A row's scale is the\n"
        "smallest with which the absolute integers of columns 8i + {0, 1, 4, 5}, and of\n"
        "8i + {2, 3, 6, 7}, sum to at most 128. `input_scales` [K], positive, for int8: x is\n"
        "multiplied by them and the columns of the weight divided, which moves range from x to the\n"
        "weight (Xiao et al. 2022, arXiv 2211.10438, equation 3).\n\n"
        "`shape` and `nbytes` are as in arrays, `dtype` is the name; `unpack()` returns a read-only copy [N, K],\n"
        "float32, of what the weight has become. `numbers()` returns a dict with `weight` [N, K]:\n"
        "float32, the bits of bfloat16 as uint16, or int8, then with `scales` [N] and, if given,\n"
        "`input_scales` [K]; `PackedMatrix.of_numbers(**numbers)` is the same matrix again.\n\n"
        "Raises TypeError for another dtype of the weight, ValueError for another number of axes, a\n"
        "strided last axis, a number of groups that does not divide N, and with a dtype of fewer bits for\n"
        "groups, a weight that is not finite and, int8, more than 262,144 columns.")
        .def(py::init([](py::handle weight, py::handle groups_, py::handle dtype, py::handle input_scales_) {
                 run_pass();
                 const Array w = floats("PackedMatrix", "weight", weight).expect_ndim(2).expect_contiguous_rows();
                 const i64 groups = integer("PackedMatrix", "groups", groups_), n = w.shape[0], k = w.shape[1];
                 if (groups < 1 || n % groups != 0)
                     value_error("PackedMatrix: groups must divide the " + std::to_string(n) + " rows of weight, got " +
                                 std::to_string(groups));
                 const Element element = choose("PackedMatrix", "dtype", dtype, elements);
                 const Array input_scales = scales_of_input(input_scales_, element, k);
                 if (element != Element::float32) expect_quantizable(w, input_scales, element, groups);
                 std::unique_ptr<PackedMatrix> packed;
                 without_lock([&] {
                     const float* const data = w.as<float>();
                     if (element == Element::float32)
                         packed = std::make_unique<PackedMatrix>(data, n, k, w.stride[0], groups);
                     else if (element == Element::bfloat16)
                         packed = std::make_unique<PackedMatrix>(PackedMatrix::to_bfloat16(data, n, k, w.stride[0]));
                     else
                         packed = std::make_unique<PackedMatrix>(
                             PackedMatrix::to_bytes(data, n, k, w.stride[0], input_scales.as<float>()));
                 });
                 return packed;
             }),
             py::arg("weight"), py::arg("groups") = 1, py::kw_only(), py::arg("dtype") = "float32",
             py::arg("input_scales") = py::none())
        .def_static("of_numbers", &of_numbers, py::arg("weight"), py::arg("scales") = py::none(),
                    py::arg("input_scales") = py::none(),
                    "The matrix whose `numbers()` these are.\n\n"
                    "Raises TypeError for another dtype, ValueError for shapes that do not match, numbers that are\n"
                    "not finite, scales that are negative and integers whose sums of products could saturate.")
        .def("numbers", &numbers)
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
        .def_property_readonly("dtype", [](const PackedMatrix& w) { return name_of(w.element()); })
        .def_property_readonly("nbytes", &PackedMatrix::nbytes)
        .def("unpack",
             [](const PackedMatrix& w) {
                 py::object plain = new_floats({w.n(), w.k()});
                 run_pass();  // it holds NaN until then
                 without_lock([&] { w.unpack(data_of(plain)); });
                 plain.attr("flags").attr("writeable") = false;
                 return plain;
             })
        .def("__repr__", [](const PackedMatrix& w) {
            return "PackedMatrix(shape=(" + std::to_string(w.n()) + ", " + std::to_string(w.k()) +
                   "), dtype=" + name_of(w.element()) + ")";
        });
}

}  // namespace fastattn::bindings
