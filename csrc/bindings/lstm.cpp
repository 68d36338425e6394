#include <limits>

#include "bindings.h"
#include "recurrent.h"

namespace fastattn::bindings {
namespace {

constexpr i64 gates = 4;

float clip(const char* f, const char* argument, py::handle value) {
    return value.is_none() ? std::numeric_limits<float>::infinity() : static_cast<float>(positive(f, argument, value));
}

// What both passes have beyond the common arguments.
struct Shape : Lstm {
    Shape(const RecurrentLayer& layer, py::handle c0_, py::handle cell_clip_, py::handle proj_clip_) : Lstm{} {
        const char* const f = layer.function;
        sequences = layer.order.sequences();
        directions = layer.directions;
        input = layer.input;
        hidden = layer.hidden;
        projection = layer.width;
        ldg = gates * hidden + padding_of_gates;
        ldm = hidden + padding_of_gates;
        cell_clip = clip(f, "cell_clip", cell_clip_);
        proj_clip = clip(f, "proj_clip", proj_clip_);
        if (!proj_clip_.is_none() && !layer.weights.front().hr)
            value_error(std::string(f) + ": proj_clip clips a projection, and weight_hr is None");
        c0 = optional_floats(f, "c0", c0_);
        state(c0, directions, layer.batch, hidden);
    }
    Array c0;
};

py::object lstm(py::handle x, py::handle cu_seqlens, py::handle weights, py::handle h0, py::handle c0_,
                py::handle reverse, py::handle cell_clip, py::handle proj_clip, bool return_reserve, bool recompute) {
    RecurrentLayer layer("lstm", x, cu_seqlens, weights, h0, reverse, gates);
    const Shape shape(layer, c0_, cell_clip, proj_clip);
    LstmForward args{};
    static_cast<Lstm&>(args) = shape;
    args.ldo = layer.directions * layer.width;
    args.keeps_gates = return_reserve && !recompute;
    args.gate_rows = args.keeps_gates ? layer.tokens : layer.rows_of_gates(args.ldg);
    const i64 h_shape[] = {layer.directions, layer.batch, layer.width};
    const i64 c_shape[] = {layer.directions, layer.batch, layer.hidden};
    const py::object out = new_rows(layer.tokens, args.ldo), h_n = new_floats(h_shape, 3), c_n = new_floats(c_shape, 3);
    Buffers buffers;
    std::vector<Kept> kept;
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        kept.push_back(set_forward(d, layer, i, out, h_n, args.gate_rows, args.ldg));
        d.c_n = layer.part(data_of(c_n), i, layer.hidden);
        d.c0 = layer.part(shape.c0, i, layer.hidden);
        if (return_reserve) {
            kept.back().c_rows = new_rows(layer.batch + layer.tokens, layer.hidden);
            d.c_rows = data_of(kept.back().c_rows);
        }
        RecurrentWeights& w = layer.weights[static_cast<std::size_t>(i)];
        if (!w.hr) continue;
        d.hr_panels = w.hr.panels();
        d.m = buffers.rows(layer.batch, args.ldm);
    }
    compute(&KernelTable::lstm_forward, args);
    if (!return_reserve) return py::make_tuple(out, h_n, c_n);
    py::list reserve;
    for (const Kept& k : kept)
        reserve.append(py::make_tuple(recompute ? py::object(py::none()) : k.gates, k.x_rows, k.h_rows, k.c_rows));
    return py::make_tuple(out, h_n, c_n, py::tuple(reserve));
}

py::object lstm_backward(py::handle dout, py::handle dh_n, py::handle dc_n_, py::handle x, py::handle cu_seqlens,
                         py::handle weights, py::handle reserve, py::handle h0, py::handle c0, py::handle reverse,
                         py::handle cell_clip, py::handle proj_clip, bool need_dx, bool need_dweights,
                         py::handle dweights) {
    const char* const f = "lstm_backward";
    RecurrentLayer layer(f, x, cu_seqlens, weights, h0, reverse, gates);
    const Shape shape(layer, c0, cell_clip, proj_clip);
    RecurrentGradients gradients(layer, dout, dh_n, reserve, need_dx, need_dweights, dweights);
    const Array dc_n = optional_floats(f, "dc_n", dc_n_);
    state(dc_n, layer.directions, layer.batch, layer.hidden);
    LstmBackward args{};
    static_cast<Lstm&>(args) = shape;
    args.ldo = gradients.ldo();
    const i64 c_shape[] = {layer.directions, layer.batch, layer.hidden};
    const py::object dc0 = new_floats(c_shape, 3);
    Buffers& buffers = gradients.buffers;
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        gradients.set(d, layer, i);
        d.dgates = buffers.rows(layer.tokens, args.ldg);
        d.gates = d.hh_panels ? d.dgates : gradients.kept(i, 0, layer.tokens, args.ldg);
        d.c_rows = gradients.kept(i, 3, layer.batch + layer.tokens, layer.hidden);
        d.dc_n = layer.part(dc_n, i, layer.hidden);
        d.dc0 = layer.part(data_of(dc0), i, layer.hidden);
        d.dc = buffers.rows(layer.batch, layer.hidden);
        RecurrentWeights& w = layer.weights[static_cast<std::size_t>(i)];
        if (!w.hr) continue;
        d.hr_transposed_panels = w.hr.transposed_panels();
        d.dprojection = buffers.rows(layer.tokens, layer.width);
        d.m = buffers.rows(layer.tokens, args.ldm);
        if (w.hr.array)
            d.dweight_hr = gradients.weight(i, 3, "dweight_hr", {layer.width, layer.hidden}, d.add_to_dweight_hr);
    }
    compute(&KernelTable::lstm_backward, args);
    return py::make_tuple(gradients.dx(), gradients.dweights(), gradients.dh0, dc0);
}

}  // namespace

void bind_lstm(py::module_& m) {
    m.def("lstm", &lstm);
    m.def("lstm_backward", &lstm_backward);
}

}  // namespace fastattn::bindings
