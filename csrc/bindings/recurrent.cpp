#include "recurrent.h"

#include <numeric>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr i64 gates_at_once = i64{1} << 21;  // floats of gates that stay in the last cache

const char* name_of(i64 gates) { return gates == 4 ? "lstm" : "gru"; }

std::size_t count_of(i64 n) { return static_cast<std::size_t>(n); }

template <typename Object>
py::object tuple_of(const Object* objects, i64 count) {
    py::tuple result(count);
    for (i64 i = 0; i < count; ++i) result[count_of(i)] = objects[i];
    return std::move(result);
}

}  // namespace

float* Buffers::rows(i64 count, i64 columns) {
    arrays_.push_back(new_floats({count, columns}));
    return data_of(arrays_.back());
}

SequenceOrder::SequenceOrder(const Array& array, i64 tokens_) : tokens(tokens_) {
    cu_seqlens = bindings::cu_seqlens(array, tokens);
    batch = array.shape[0] - 1;
    steps = longest(cu_seqlens.get(), batch);
    const std::int32_t* const cu = cu_seqlens.get();
    const auto length = [&](i64 i) { return cu[i + 1] - cu[i]; };
    order_.reset(new i64[count_of(batch)]);
    i64* const order = order_.get();
    std::iota(order, order + batch, 0);
    std::stable_sort(order, order + batch, [&](i64 a, i64 b) { return length(a) > length(b); });
    step_begin_.reset(new i64[count_of(steps) + 1]);
    i64* const begin = step_begin_.get();
    begin[0] = 0;
    i64 rows = batch;
    for (i64 t = 0; t < steps; ++t) {
        while (rows > 0 && length(order[rows - 1]) <= t) --rows;
        begin[t + 1] = begin[t] + rows;
    }
}

bool SequenceOrder::is_token_order(bool reverse) const {
    const bool one_sequence = steps == tokens, one_step = steps == 1 && tokens == batch;
    return tokens <= 1 || (one_sequence && !reverse) || one_step;
}

DirectionWeights::DirectionWeights(const char* function, py::handle tuple, i64 gates)
    : owned_(items(function, "weights", tuple, 4, 4)) {
    ih = Weight(function, "weight_ih", owned_[0]);
    hh = Weight(function, "weight_hh", owned_[1], gates);
    const py::object third = owned_[2], fourth = owned_[3];
    bias_ih = optional_floats(function, gates == 4 ? "bias" : "bias_ih", third);
    if (gates == 3)
        bias_hh = optional_floats(function, "bias_hh", fourth);
    else if (!fourth.is_none())
        hr = Weight(function, "weight_hr", fourth);
}

RecurrentLayer::RecurrentLayer(const char* f, i64 gates_, py::handle x, py::handle cu_seqlens, py::handle weights_,
                               py::handle h0_, py::handle reverse_)
    : function(f), gates(gates_), shares_x(!is_list(x)) {
    given_weights_ = items(f, "weights", weights_, 1, most_directions);
    directions = static_cast<i64>(given_weights_.size());
    if (!shares_x) given_x_ = items(f, "x", x, directions, directions);
    for (i64 i = 0; i < (shares_x ? 1 : directions); ++i) {
        const py::handle item = shares_x ? x : PyTuple_GET_ITEM(given_x_.ptr(), i);
        x_[i] = floats(f, "x", item).expect_ndim(2).expect_contiguous_rows();
        x_[i].expect_shape(x_[0].shape);
    }
    tokens = x_[0].shape[0];
    input = x_[0].shape[1];
    order = SequenceOrder(array(f, "cu_seqlens", cu_seqlens, Dtype::int32), tokens);
    batch = order.batch;
    i64 flags = 0;
    for (py::handle flag : items(f, "reverse", reverse_, directions, most_directions)) {
        if (!PyBool_Check(flag.ptr()))
            type_error(Where{f, "reverse"}.str() + " must be True or False for each direction, got " + shown(flag));
        reverse[flags++] = flag.ptr() == Py_True;
    }
    for (i64 i = 0; i < directions; ++i) weights[i] = DirectionWeights(f, given_weights_[count_of(i)], gates);

    const DirectionWeights& first = weights[0];
    hidden = first.hh.n / gates;
    width = first.hr ? first.hr.n : hidden;
    if (hidden < 1 || first.hh.n % gates != 0 || width < 1)
        value_error(std::string(f) + ": weight_hh must have " + std::to_string(gates) + " * hidden rows, got " +
                    std::to_string(first.hh.n));
    for (i64 i = 0; i < directions; ++i) {
        const DirectionWeights& w = weights[i];
        w.ih.expect_shape(gates * hidden, input);
        w.hh.expect_shape(gates * hidden, width);
        for (const Array& bias : {w.bias_ih, w.bias_hh})
            if (bias) bias.expect_shape({gates * hidden}).expect_contiguous();
        if (bool(w.hr) != bool(first.hr))
            value_error(std::string(f) + ": weight_hr must be given for all directions or for none");
        if (w.hr) w.hr.expect_shape(width, hidden);
    }
    h0 = optional_states("h0", h0_, width);
}

Array RecurrentLayer::optional_states(const char* argument, py::handle object, i64 dim) const {
    const Array result = optional_floats(function, argument, object);
    if (result) result.expect_shape(states(dim)).expect_contiguous();
    return result;
}

void RecurrentLayer::fill(Recurrent& args) const {
    args.sequences = order.sequences();
    args.directions = directions;
    args.gates = gates;
    args.input = input;
    args.hidden = hidden;
    args.width = width;
    args.ldg = 4 * hidden + padding_of_gates;
    args.ldo = directions * width;
}

bool RecurrentLayer::has_own_panels() const {
    return std::any_of(weights, weights + directions,
                       [](const DirectionWeights& w) { return w.hh.has_own_panels() || w.hr.has_own_panels(); });
}

RecurrentReserve::RecurrentReserve(const RecurrentLayer& layer)
    : gates_(layer.gates),
      sizes_{layer.input, layer.hidden, layer.width},
      reverse_(layer.reverse, layer.reverse + layer.directions),
      cu_seqlens_(layer.order.cu_seqlens.get(), layer.order.cu_seqlens.get() + layer.batch + 1),
      has_h0_(layer.h0),
      cell_clip_(layer.cell_clip),
      proj_clip_(layer.proj_clip) {}

const RecurrentReserve& RecurrentReserve::of(const RecurrentLayer& layer, py::handle object) {
    const Where where{layer.function, "reserve"};
    if (!py::isinstance<RecurrentReserve>(object))
        type_error(where.str() + " must be what " + name_of(layer.gates) + " returned with return_reserve, got " +
                   shown(py::type::handle_of(object).attr("__name__")));
    const auto& reserve = object.cast<const RecurrentReserve&>();
    const auto refuse = [&](const std::string& wanted, const std::string& got) {
        value_error(where.str() + " must be of a call " + wanted + ", got one " + got);
    };
    const auto flags = [](const std::vector<bool>& reverse) {
        std::string text = "with reverse (";
        for (std::size_t i = 0; i < reverse.size(); ++i)
            text += (i ? ", " : "") + std::string(reverse[i] ? "True" : "False");
        return text + (reverse.size() == 1 ? ",)" : ")");
    };
    const RecurrentReserve wanted(layer);
    if (reserve.gates_ != wanted.gates_)
        refuse(std::string("of ") + name_of(wanted.gates_), std::string("of ") + name_of(reserve.gates_));
    if (!(reserve.sizes_ == wanted.sizes_))
        refuse("with inputs, hidden units and outputs " + wanted.sizes_.str(), "with " + reserve.sizes_.str());
    if (reserve.reverse_ != wanted.reverse_) refuse(flags(wanted.reverse_), flags(reserve.reverse_));
    if (reserve.cu_seqlens_ != wanted.cu_seqlens_) refuse("with this cu_seqlens", "with another");
    if (reserve.has_h0_ != wanted.has_h0_)
        refuse(wanted.has_h0_ ? "with h0" : "without h0", reserve.has_h0_ ? "with h0" : "without h0");
    const auto refuse_clip = [&](const std::string& name, double wanted_clip, double clip) {
        const auto described = [&](double value) {
            return value == infinite ? "without " + name
                                     : "with " + name + " " + std::string(py::str(py::float_(value)));
        };
        if (wanted_clip != clip) refuse(described(wanted_clip), described(clip));
    };
    refuse_clip("cell_clip", wanted.cell_clip_, reserve.cell_clip_);
    refuse_clip("proj_clip", wanted.proj_clip_, reserve.proj_clip_);
    return reserve;
}

RecurrentForwardPass::RecurrentForwardPass(RecurrentLayer& layer, RecurrentForward& args, bool return_reserve,
                                           bool recompute)
    : reserve(return_reserve ? std::make_unique<RecurrentReserve>(layer) : nullptr), layer_(layer), args_(args) {
    const bool keeps_gates = return_reserve && !recompute;
    layer.fill(args);
    args.keeps_gates = keeps_gates;
    args.gate_rows =
        keeps_gates ? layer.tokens : std::min(layer.tokens, std::max({layer.batch, i64{1}, gates_at_once / args.ldg}));
    h_n = result(layer.states(layer.width));
    out = result({layer.tokens, args.ldo});
}

void RecurrentForwardPass::set(ForwardDirection& d, i64 i) {
    DirectionWeights& w = layer_.weights[i];
    if (reserve) {
        RecurrentReserve::Direction& kept = reserve->direction[i];
        if (args_.keeps_gates) d.gates = kept.gates = reserve->buffers.rows(args_.gate_rows, args_.ldg);
        if (layer_.is_gathered(i)) d.x_rows = kept.x_rows = reserve->buffers.rows(layer_.tokens, layer_.input);
        d.h_rows = kept.h_rows = reserve->buffers.rows(layer_.batch + layer_.tokens, layer_.width);
    }
    d.x = layer_.x(i).as<float>();
    d.ldx = layer_.x(i).stride[0];
    d.reverse = layer_.reverse[i];
    d.out = data_of(out) + i * layer_.width;
    d.h_n = layer_.part(data_of(h_n), i, layer_.width);
    d.h0 = layer_.part(layer_.h0, i, layer_.width);
    d.weight_ih = w.ih.view();
    d.hh_panels = w.hh.panels();
    d.bias_ih = w.bias_ih.as<float>();
}

RecurrentBackwardPass::RecurrentBackwardPass(RecurrentLayer& layer, RecurrentBackward& args, py::handle dout,
                                             py::handle dh_n, py::handle reserve_, py::handle need_dx,
                                             py::handle need_dweights, py::handle dweights)
    : reserve(RecurrentReserve::of(layer, reserve_)),
      dh0(new_floats(layer.states(layer.width))),
      layer_(layer),
      args_(args),
      dout_(optional_floats(layer.function, "dout", dout)),
      dh_n_(layer.optional_states("dh_n", dh_n, layer.width)),
      need_dx_(boolean(layer.function, "need_dx", need_dx)),
      need_dweights_(boolean(layer.function, "need_dweights", need_dweights)) {
    layer.fill(args);
    if (dout_) args.ldo = dout_.expect_shape({layer.tokens, args.ldo}).expect_contiguous_rows().stride[0];
    args.ldd = layer.gates * layer.hidden + padding_of_gates;
    const i64 directions = layer.directions;
    py::tuple all;
    if (!dweights.is_none()) all = items(layer.function, "dweights", dweights, directions, directions);
    for (i64 i = 0; i < directions; ++i) {
        given_[i] = dweights.is_none() ? py::make_tuple(py::none(), py::none(), py::none(), py::none())
                                       : items(layer.function, "dweights", all[count_of(i)], 4, 4);
        dweights_[i] = py::make_tuple(py::none(), py::none(), py::none(), py::none());
    }
}

float* RecurrentBackwardPass::dweight(i64 i, std::size_t index, const char* name, const Shape& shape, bool& adds) {
    if (!need_dweights_) return nullptr;
    const py::object given = given_[i][index];
    const Output out(layer_.function, name, given, shape);
    for (i64 j = 0; j < layer_.directions; ++j) {
        const DirectionWeights& w = layer_.weights[j];
        for (const Array* array : {&w.ih.array, &w.hh.array, &w.hr.array, &w.bias_ih, &w.bias_hh, &layer_.x(j)})
            out.apart_from(*array);
    }
    out.apart_from(dout_).apart_from(dh_n_).apart_from(layer_.h0);
    adds = !given.is_none();
    dweights_[i][index] = out.object;
    return out.data();
}

void RecurrentBackwardPass::set(BackwardDirection& d, i64 i) {
    DirectionWeights& w = layer_.weights[i];
    const RecurrentReserve::Direction& kept = reserve.direction[i];
    const i64 tokens = layer_.tokens, input = layer_.input, width = layer_.width, rows = layer_.gates * layer_.hidden;
    const bool gathered = layer_.is_gathered(i);
    d.reverse = layer_.reverse[i];
    d.starts_from_zero = !layer_.h0;
    d.x_rows = gathered ? kept.x_rows : layer_.x(i).as<float>();
    d.ldx = gathered ? input : layer_.x(i).stride[0];
    d.gates = kept.gates;
    d.h_rows = kept.h_rows;
    if (dout_) d.dout = dout_.as<float>() + i * width;
    d.dh_n = layer_.part(dh_n_, i, width);
    d.dh0 = layer_.part(data_of(dh0), i, width);
    d.dh = buffers.rows(layer_.batch, width);
    d.dgates = buffers.rows(tokens, args_.ldd);
    d.weight_ih = w.ih.view();
    d.bias_ih = w.bias_ih.as<float>();
    d.hh_transposed_panels = w.hh.transposed_panels();
    if (need_dx_) {
        d.add_to_dx = i > 0 && layer_.shares_x;
        dx_[i] = d.add_to_dx ? dx_[0] : new_floats({tokens, input});
        d.dx = data_of(dx_[i]);
        d.dx_rows = gathered || d.add_to_dx ? buffers.rows(tokens, input) : d.dx;
    }
    if (w.ih.array) d.dweight_ih = dweight(i, 0, "dweight_ih", {rows, input}, d.add_to_dweight_ih);
    if (w.hh.array) d.dweight_hh = dweight(i, 1, "dweight_hh", {rows, width}, d.add_to_dweight_hh);
    if (w.bias_ih) d.dbias_ih = dweight(i, 2, layer_.gates == 4 ? "dbias" : "dbias_ih", {rows}, d.add_to_dbias_ih);
    if (w.bias_ih || w.bias_hh) d.block_sums = buffers.rows(sum_blocks(tokens), rows);
    if (!kept.gates) d.hh_panels = w.hh.panels();
    if (!kept.gates || d.dweight_hh) d.previous_h = buffers.rows(tokens, width);
}

py::object RecurrentBackwardPass::dx() const {
    if (!need_dx_) return py::none();
    return layer_.shares_x ? dx_[0] : tuple_of(dx_, layer_.directions);
}

py::object RecurrentBackwardPass::dweights() const {
    if (!need_dweights_) return py::none();
    return tuple_of(dweights_, layer_.directions);
}

void bind_recurrent(py::module_& m) {
    py::class_<RecurrentReserve>(m, "RecurrentReserve",
                                 "What lstm and gru keep for their backward passes. Only these read it.");
}

}  // namespace fastattn::bindings
