// What the bindings of lstm and gru share: sequences, one or two directions, and weights that are packed where they are
// not so already.
#pragma once

#include <memory>
#include <vector>

#include "../packing.h"
#include "arrays.h"

namespace fastattn::bindings {

constexpr i64 max_size = i64{1} << 24;  // of a layer, so that products of sizes cannot overflow

// The order in which a layer goes through its sequences, see Sequences.
class SequenceOrder {
public:
    SequenceOrder(const Array& cu_seqlens_, i64 tokens);
    Sequences sequences() const { return sequences_; }
    i64 batch() const { return sequences_.batch; }
    bool is_token_order(bool reverse) const;  // the rows stand as the tokens do

private:
    std::vector<i64> order_, step_begin_;
    Sequences sequences_;
};

// `object`, a tuple or list of `least` to `most` items.
py::tuple items(const char* function, const char* argument, py::handle object, i64 least, i64 most);

// x of each direction: one array for all, or a tuple or list of arrays of the same shape [tokens, input].
class Inputs {
public:
    Inputs(const char* function, py::handle x, i64 directions);
    const Array& of(i64 direction) const { return arrays_[shared ? 0 : static_cast<std::size_t>(direction)]; }
    bool shared;
    i64 tokens, input;

private:
    std::vector<Array> arrays_;
};

// A weight [n, k], an array or packed; `panels` packs an array.
class RecurrentWeight {
public:
    RecurrentWeight() = default;
    RecurrentWeight(const char* function, const char* argument, py::handle object, i64 groups);
    void expect_shape(i64 n, i64 k) const;
    explicit operator bool() const { return packed_ || array; }
    bool is_packed() const { return packed_ != nullptr; }
    const float* own_panels() const { return packed_ ? packed_->panels() : nullptr; }  // null for an array
    const float* panels();
    const float* transposed_panels();

    Array array;
    i64 n = 0, k = 0;

private:
    Where where_;
    i64 groups_ = 1;
    const PackedMatrix* packed_ = nullptr;
    std::unique_ptr<PackedMatrix> made_, transposed_;
};

std::vector<bool> flags(const char* function, const char* argument, py::handle object, i64 directions);
// [directions, batch, dim], or null
const float* state(const Array& array, i64 directions, i64 batch, i64 dim);

// The weights of one direction: (weight_ih, weight_hh, bias, weight_hr) of an LSTM, which has four gates, or
// (weight_ih, weight_hh, bias_ih, bias_hh) of a GRU, which has three.
struct RecurrentWeights {
    RecurrentWeights(const char* function, py::handle tuple, i64 gates);
    RecurrentWeight ih, hh, hr;
    Array bias_ih, bias_hh;
};

// The arguments that lstm, gru and their backward passes have in common, and their checks.
class RecurrentLayer {
public:
    RecurrentLayer(const char* function, py::handle x, py::handle cu_seqlens, py::handle weights, py::handle h0,
                   py::handle reverse, i64 gates);
    // Direction i's part of an array [directions, batch, dim].
    float* part(float* states, i64 i, i64 dim) const { return states + i * batch * dim; }
    const float* part(const Array& states, i64 i, i64 dim) const {
        return states ? states.as<float>() + i * batch * dim : nullptr;
    }
    i64 rows_of_gates(i64 ldg) const;  // that inference holds at a time

    const char* function;
    i64 directions, gates;
    Inputs inputs;
    SequenceOrder order;
    std::vector<bool> reverse;
    std::vector<RecurrentWeights> weights;
    Array h0;
    i64 tokens, batch, input, hidden, width;  // of h
};

// Arrays that live until a kernel is done.
class Buffers {
public:
    float* rows(i64 count, i64 columns);

private:
    std::vector<py::object> arrays_;
};

py::object new_rows(i64 count, i64 columns);
constexpr i64 padding_of_gates = 16;  // floats between rows of gates

// A forward pass: sets what the directions of both layers have, and keeps what a backward pass starts from.
struct Kept {
    py::object gates, x_rows, h_rows, c_rows;
};
template <typename Direction>
Kept set_forward(Direction& d, RecurrentLayer& layer, i64 i, const py::object& out, const py::object& h_n,
                 i64 gate_rows, i64 ldg) {
    RecurrentWeights& w = layer.weights[static_cast<std::size_t>(i)];
    const Array& x = layer.inputs.of(i);
    Kept kept{new_rows(gate_rows, ldg), py::none(), new_rows(layer.batch + layer.tokens, layer.width), py::none()};
    d.reverse = layer.reverse[static_cast<std::size_t>(i)];
    d.x = x.as<float>();
    d.ldx = x.stride[0];
    if (!layer.order.is_token_order(d.reverse)) {
        kept.x_rows = new_rows(layer.tokens, layer.input);
        d.x_rows = data_of(kept.x_rows);
    }
    d.gates = data_of(kept.gates);
    d.h_rows = data_of(kept.h_rows);
    d.out = data_of(out) + i * layer.width;
    d.h_n = layer.part(data_of(h_n), i, layer.width);
    d.h0 = layer.part(layer.h0, i, layer.width);
    d.ih_panels = w.ih.own_panels();
    d.weight_ih = w.ih.array.as<float>();
    d.ld_ih = w.ih.array ? w.ih.array.stride[0] : 0;
    d.hh_panels = w.hh.panels();
    d.bias_ih = w.bias_ih.as<float>();
    return kept;
}

// What the gradients of a call become, and how they are asked for.
class RecurrentGradients {
public:
    RecurrentGradients(const RecurrentLayer& layer, py::handle dout, py::handle dh_n, py::handle reserve, bool need_dx,
                       bool need_dweights, py::handle dweights);

    // An array that the forward pass kept, or null for None.
    float* kept(i64 direction, std::size_t index, i64 count, i64 columns) const;
    // The gradient of the index'th weight: added to what was given, else new.
    float* weight(i64 direction, std::size_t index, const char* name, std::initializer_list<i64> shape, bool& adds);

    template <typename Direction>
    void set(Direction& d, RecurrentLayer& layer, i64 i) {
        RecurrentWeights& w = layer.weights[static_cast<std::size_t>(i)];
        const i64 rows_of_weight = layer.gates * layer.hidden;
        d.reverse = layer.reverse[static_cast<std::size_t>(i)];
        d.starts_from_zero = !layer.h0;
        const Array& x = layer.inputs.of(i);
        const bool gathered = !layer.order.is_token_order(d.reverse);
        d.x_rows = gathered ? kept(i, 1, layer.tokens, layer.input) : x.as<float>();
        d.ldx = gathered ? layer.input : x.stride[0];
        d.h_rows = kept(i, 2, layer.batch + layer.tokens, layer.width);
        if (dout_) d.dout = dout_.as<float>() + i * layer.width;
        d.dh_n = layer.part(dh_n_, i, layer.width);
        d.dh0 = layer.part(data_of(dh0), i, layer.width);
        d.dh = buffers.rows(layer.batch, layer.width);
        d.ih_panels = w.ih.own_panels();
        d.weight_ih = w.ih.array.as<float>();
        d.ld_ih = w.ih.array ? w.ih.array.stride[0] : 0;
        d.bias_ih = w.bias_ih.as<float>();
        d.hh_transposed_panels = w.hh.transposed_panels();
        if (need_dx_) {
            d.add_to_dx = i > 0 && layer.inputs.shared;
            dx_.push_back(d.add_to_dx ? dx_.front() : new_rows(layer.tokens, layer.input));
            d.dx = data_of(dx_.back());
            d.dx_rows = gathered || d.add_to_dx ? buffers.rows(layer.tokens, layer.input) : d.dx;
        }
        if (w.ih.array) d.dweight_ih = weight(i, 0, "dweight_ih", {rows_of_weight, layer.input}, d.add_to_dweight_ih);
        if (w.hh.array) d.dweight_hh = weight(i, 1, "dweight_hh", {rows_of_weight, layer.width}, d.add_to_dweight_hh);
        if (w.bias_ih) {
            d.dbias_ih = weight(i, 2, layer.gates == 4 ? "dbias" : "dbias_ih", {rows_of_weight}, d.add_to_dbias_ih);
            d.block_sums = buffers.rows(sum_blocks(layer.tokens), rows_of_weight);
        }
        const bool again = reserve_[static_cast<std::size_t>(i)][0].is_none();
        if (again) d.hh_panels = w.hh.panels();
        if (again || d.dweight_hh) d.previous_h = buffers.rows(layer.tokens, layer.width);
    }
    py::object dx() const;
    py::object dweights() const;
    i64 ldo() const { return dout_ ? dout_.stride[0] : 0; }

    Buffers buffers;
    py::object dh0;

private:
    const RecurrentLayer& layer_;
    Array dout_, dh_n_;
    std::vector<py::tuple> reserve_, given_, dweights_;
    std::vector<py::object> dx_;
    bool need_dx_, need_dweights_;
};

}  // namespace fastattn::bindings
