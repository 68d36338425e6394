// A weight as passed in a call: an array, or a PackedMatrix.
#pragma once

#include <memory>

#include "../packing.h"
#include "arrays.h"

template <>
struct pybind11::detail::type_caster<fastattn::PackedMatrix>
    : fastattn::bindings::InitializedCaster<fastattn::PackedMatrix> {};

namespace fastattn::bindings {

inline constexpr Choice<Element> elements[] = {
    {"float32", Element::float32},
    {"bfloat16", Element::bfloat16},
    {"int8", Element::int8},
};
const char* name_of(Element element);

// W [n, k], which belongs to the caller: see items().
class Weight {
public:
    Weight() = default;  // none: false
    // A PackedMatrix must have `groups`, an array `axes`; the axes after the first are the columns. Only `any_element`
    // takes a PackedMatrix of fewer bits.
    Weight(const char* function, const char* argument, py::handle object, i64 groups = 1, int axes = 2,
           bool any_element = false);
    void expect_shape(i64 rows, i64 columns) const;
    explicit operator bool() const { return packed_ || array; }
    bool is_packed() const { return packed_ != nullptr; }
    bool has_own_panels() const { return made_ != nullptr; }  // which end with this object

    WeightView view() const;
    const float* panels();             // of the PackedMatrix, or of one made from the array
    const float* transposed_panels();  // of W^T
    const float* contiguous();         // the array, or a new one with the unpacked PackedMatrix

    Array array;  // none for a PackedMatrix
    i64 n = 0, k = 0;

private:
    Where where_;
    i64 groups_ = 1;
    py::object unpacked_;
    const PackedMatrix* packed_ = nullptr;
    std::unique_ptr<PackedMatrix> made_, transposed_;
};

}  // namespace fastattn::bindings
