#include "recurrent.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <numeric>

namespace fastattn::bindings {
namespace {

bool is_list(py::handle object) { return py::isinstance<py::tuple>(object) || py::isinstance<py::list>(object); }

}  // namespace

SequenceOrder::SequenceOrder(const Array& cu_seqlens_, i64 tokens) : sequences_{} {
    const std::int32_t* cu = cu_seqlens(cu_seqlens_, tokens);
    const i64 batch = cu_seqlens_.shape[0] - 1;
    const auto length = [&](i64 i) { return cu[i + 1] - cu[i]; };
    order_.resize(static_cast<std::size_t>(batch));
    std::iota(order_.begin(), order_.end(), 0);
    std::stable_sort(order_.begin(), order_.end(), [&](i64 a, i64 b) { return length(a) > length(b); });
    const i64 steps = longest(cu, batch);
    step_begin_.resize(static_cast<std::size_t>(steps) + 1);
    i64 rows = batch, begin = 0;
    for (i64 t = 0; t < steps; ++t) {
        step_begin_[static_cast<std::size_t>(t)] = begin;
        while (rows > 0 && length(order_[static_cast<std::size_t>(rows - 1)]) <= t) --rows;
        begin += rows;
    }
    step_begin_.back() = begin;
    sequences_ = {cu, order_.data(), step_begin_.data(), batch, tokens, steps};
}

bool SequenceOrder::is_token_order(bool reverse) const {
    const auto& s = sequences_;
    return s.tokens <= 1 || (!reverse && s.cu_seqlens[s.order[0] + 1] - s.cu_seqlens[s.order[0]] == s.tokens) ||
           (s.steps == 1 && s.tokens == s.batch);
}

py::tuple items(const char* function, const char* argument, py::handle object, i64 least, i64 most) {
    if (!is_list(object))
        type_error(Where{function, argument}.str() + " must be a tuple or list, got " +
                   std::string(py::str(py::type::handle_of(object).attr("__name__"))));
    const py::tuple result(py::reinterpret_borrow<py::object>(object));
    const i64 count = static_cast<i64>(result.size());
    if (count < least || count > most)
        value_error(Where{function, argument}.str() + " must have " + std::to_string(least) +
                    (most > least ? " to " + std::to_string(most) : "") + " items, got " + std::to_string(count));
    return result;
}

Inputs::Inputs(const char* function, py::handle x, i64 directions) : shared(!is_list(x)) {
    if (shared) {
        arrays_.push_back(floats(function, "x", x).expect_ndim(2).expect_contiguous_rows());
    } else {
        for (py::handle item : items(function, "x", x, directions, directions)) {
            arrays_.push_back(floats(function, "x", item).expect_ndim(2).expect_contiguous_rows());
            arrays_.back().expect_shape_of(arrays_.front());
        }
    }
    tokens = arrays_.front().shape[0];
    input = arrays_.front().shape[1];
}

RecurrentWeight::RecurrentWeight(const char* function, const char* argument, py::handle object, i64 groups)
    : where_{function, argument}, groups_(groups) {
    if (py::isinstance<PackedMatrix>(object)) {
        packed_ = &object.cast<const PackedMatrix&>();
        if (packed_->groups() != groups)
            value_error(where_.str() + " must be packed with groups=" + std::to_string(groups) + ", got " +
                        std::to_string(packed_->groups()));
        n = packed_->n();
        k = packed_->k();
    } else {
        array = floats(function, argument, object).expect_ndim(2).expect_contiguous_rows();
        n = array.shape[0];
        k = array.shape[1];
    }
}

void RecurrentWeight::expect_shape(i64 rows, i64 columns) const {
    const i64 wanted[] = {rows, columns}, got[] = {n, k};
    if (n != rows || k != columns)
        value_error(where_.str() + " must have shape " + shape_text(wanted, 2) + ", got " + shape_text(got, 2));
}

const float* RecurrentWeight::panels() {
    if (packed_) return packed_->panels();
    if (!made_) {
        const py::gil_scoped_release release;
        made_ = std::make_unique<PackedMatrix>(array.as<float>(), n, k, array.stride[0], groups_);
    }
    return made_->panels();
}

const float* RecurrentWeight::transposed_panels() {
    const py::gil_scoped_release release;
    transposed_ = std::make_unique<PackedMatrix>(
        packed_ ? packed_->transposed() : PackedMatrix::transposed(array.as<float>(), n, k, array.stride[0]));
    return transposed_->panels();
}

std::vector<bool> flags(const char* function, const char* argument, py::handle object, i64 directions) {
    std::vector<bool> result;
    for (py::handle item : items(function, argument, object, directions, most_directions)) {
        if (!PyBool_Check(item.ptr()))
            type_error(Where{function, argument}.str() + " must be True or False for each direction, got " +
                       std::string(py::repr(item)));
        result.push_back(item.ptr() == Py_True);
    }
    return result;
}

const float* state(const Array& array, i64 directions, i64 batch, i64 dim) {
    return array ? array.expect_shape({directions, batch, dim}).expect_contiguous().as<float>() : nullptr;
}

RecurrentWeights::RecurrentWeights(const char* function, py::handle tuple, i64 gates) {
    const py::tuple given = items(function, "weights", tuple, 4, 4);
    ih = RecurrentWeight(function, "weight_ih", given[0], 1);
    hh = RecurrentWeight(function, "weight_hh", given[1], gates);
    if (gates == 4) {
        bias_ih = optional_floats(function, "bias", given[2]);
        if (!given[3].is_none()) hr = RecurrentWeight(function, "weight_hr", given[3], 1);
    } else {
        bias_ih = optional_floats(function, "bias_ih", given[2]);
        bias_hh = optional_floats(function, "bias_hh", given[3]);
    }
}

namespace {

i64 count_directions(const char* function, py::handle weights) {
    return static_cast<i64>(items(function, "weights", weights, 1, most_directions).size());
}

}  // namespace

RecurrentLayer::RecurrentLayer(const char* f, py::handle x, py::handle cu_seqlens, py::handle weights_, py::handle h0_,
                               py::handle reverse_, i64 gates_)
    : function(f),
      directions(count_directions(f, weights_)),
      gates(gates_),
      inputs(f, x, directions),
      order(fastattn::bindings::array(f, "cu_seqlens", cu_seqlens, Dtype::int32), inputs.tokens),
      reverse(flags(f, "reverse", reverse_, directions)),
      tokens(inputs.tokens),
      batch(order.batch()),
      input(inputs.input) {
    for (py::handle item : items(f, "weights", weights_, 1, most_directions)) weights.emplace_back(f, item, gates);
    const RecurrentWeights& first = weights.front();
    hidden = first.hh.n / gates;
    width = first.hr ? first.hr.n : hidden;
    if (hidden < 1 || first.hh.n % gates != 0 || width < 1)
        value_error(std::string(f) + ": weight_hh must have " + std::to_string(gates) + " * hidden rows, got " +
                    std::to_string(first.hh.n));
    for (const RecurrentWeights& w : weights) {
        w.ih.expect_shape(gates * hidden, input);
        w.hh.expect_shape(gates * hidden, width);
        for (const Array& bias : {w.bias_ih, w.bias_hh})
            if (bias) bias.expect_shape({gates * hidden}).expect_contiguous();
        if (bool(w.hr) != bool(first.hr))
            value_error(std::string(f) + ": weight_hr must be given for all directions or for none");
        if (w.hr) w.hr.expect_shape(width, hidden);
    }
    h0 = optional_floats(f, "h0", h0_);
    state(h0, directions, batch, width);
}

i64 RecurrentLayer::rows_of_gates(i64 ldg) const {
    constexpr i64 floats_at_once = 1 << 21;  // they stay in the last cache
    return std::min(tokens, std::max({batch, i64{1}, floats_at_once / ldg}));
}

py::object new_rows(i64 count, i64 columns) {
    const i64 shape[] = {count, columns};
    return new_floats(shape, 2);
}

float* Buffers::rows(i64 count, i64 columns) {
    arrays_.push_back(new_rows(count, columns));
    return data_of(arrays_.back());
}

RecurrentGradients::RecurrentGradients(const RecurrentLayer& layer, py::handle dout, py::handle dh_n,
                                       py::handle reserve, bool need_dx, bool need_dweights, py::handle dweights)
    : layer_(layer), need_dx_(need_dx), need_dweights_(need_dweights) {
    const char* const f = layer.function;
    dout_ = optional_floats(f, "dout", dout);
    if (dout_) dout_.expect_shape({layer.tokens, layer.directions * layer.width}).expect_contiguous_rows();
    dh_n_ = optional_floats(f, "dh_n", dh_n);
    state(dh_n_, layer.directions, layer.batch, layer.width);
    const i64 shape[] = {layer.directions, layer.batch, layer.width};
    dh0 = new_floats(shape, 3);
    for (py::handle item : items(f, "reserve", reserve, layer.directions, layer.directions))
        reserve_.push_back(items(f, "reserve", item, 4, 4));
    const py::tuple none = py::make_tuple(py::none(), py::none(), py::none(), py::none());
    if (dweights.is_none()) {
        given_.assign(static_cast<std::size_t>(layer.directions), none);
    } else {
        for (py::handle item : items(f, "dweights", dweights, layer.directions, layer.directions))
            given_.push_back(items(f, "dweights", item, 4, 4));
    }
    for (i64 i = 0; i < layer.directions; ++i) dweights_.push_back(py::tuple(py::list(none)));
}

float* RecurrentGradients::kept(i64 direction, std::size_t index, i64 count, i64 columns) const {
    const py::object object = reserve_[static_cast<std::size_t>(direction)][index];
    if (object.is_none()) return nullptr;
    return floats(layer_.function, "reserve", object).expect_shape({count, columns}).expect_contiguous().as<float>();
}

float* RecurrentGradients::weight(i64 direction, std::size_t index, const char* name, std::initializer_list<i64> shape,
                                  bool& adds) {
    if (!need_dweights_) return nullptr;
    const auto at = static_cast<std::size_t>(direction);
    const py::object given = given_[at][index];
    const Output out(layer_.function, name, given, shape.begin(), static_cast<i64>(shape.size()));
    for (const RecurrentWeights& w : layer_.weights)
        for (const Array* array : {&w.ih.array, &w.hh.array, &w.hr.array, &w.bias_ih, &w.bias_hh})
            out.apart_from(*array);
    for (i64 i = 0; i < (layer_.inputs.shared ? 1 : layer_.directions); ++i) out.apart_from(layer_.inputs.of(i));
    out.apart_from(dout_).apart_from(dh_n_).apart_from(layer_.h0);
    adds = !given.is_none();
    PyTuple_SetItem(dweights_[at].ptr(), static_cast<py::ssize_t>(index), py::object(out.object).release().ptr());
    return out.data();
}

py::object RecurrentGradients::dx() const {
    if (!need_dx_) return py::none();
    if (layer_.inputs.shared) return dx_.front();
    return py::tuple(py::cast(dx_));
}

py::object RecurrentGradients::dweights() const {
    if (!need_dweights_) return py::none();
    return py::tuple(py::cast(dweights_));
}

}  // namespace fastattn::bindings
