#include "weight.h"

namespace fastattn::bindings {

const char* name_of(Element element) {
    for (const auto& each : elements)
        if (each.value == element) return each.name;
    return "";
}

Weight::Weight(const char* function, const char* argument, py::handle object, i64 groups, int axes, bool any_element)
    : where_{function, argument}, groups_(groups) {
    if (py::isinstance<PackedMatrix>(object)) {
        packed_ = &object.cast<const PackedMatrix&>();
        if (packed_->groups() != groups)
            value_error(where_.str() + " must be packed with groups=" + std::to_string(groups) + ", got " +
                        std::to_string(packed_->groups()));
        if (packed_->element() != Element::float32 && !any_element)
            type_error(where_.str() + " must be float32, got a PackedMatrix of " + name_of(packed_->element()));
        n = packed_->n();
        k = packed_->k();
        if (Pass* const pass = Pass::current()) pass->keep(object);
        return;
    }
    array = floats(function, argument, object).expect_ndim(axes);
    axes == 2 ? array.expect_contiguous_rows() : array.expect_contiguous();
    n = array.shape[0];
    k = 1;
    for (int i = 1; i < axes; ++i) k *= array.shape[i];
}

void Weight::expect_shape(i64 rows, i64 columns) const {
    if (n != rows || k != columns)
        value_error(where_.str() + " must have shape " + Shape{rows, columns}.str() + ", got " + Shape{n, k}.str());
}

WeightView Weight::view() const {
    if (packed_) return packed_->view();
    return {nullptr, array.as<float>(), array ? array.stride[0] : 0};
}

const float* Weight::panels() {
    if (packed_) return packed_->panels();
    if (!made_) {
        run_pass();
        without_lock(
            [&] { made_ = std::make_unique<PackedMatrix>(array.as<float>(), n, k, array.stride[0], groups_); });
    }
    return made_->panels();
}

const float* Weight::transposed_panels() {
    run_pass();
    without_lock([&] {
        transposed_ = std::make_unique<PackedMatrix>(
            packed_ ? packed_->transposed() : PackedMatrix::transposed(array.as<float>(), n, k, array.stride[0]));
    });
    return transposed_->panels();
}

const float* Weight::contiguous() {
    if (!packed_) return array.expect_contiguous().as<float>();
    unpacked_ = new_floats({n, k});
    float* const to = data_of(unpacked_);
    without_lock([&] { packed_->unpack(to); });
    return to;
}

}  // namespace fastattn::bindings
