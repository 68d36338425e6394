#include "bindings.h"
#include "recurrent.h"

namespace fastattn::bindings {
namespace {

constexpr i64 gates = 3;

Gru shape_of(const RecurrentLayer& layer) {
    Gru shape{};
    shape.sequences = layer.order.sequences();
    shape.directions = layer.directions;
    shape.input = layer.input;
    shape.hidden = layer.hidden;
    shape.ldg = 4 * layer.hidden + padding_of_gates;
    return shape;
}

py::object gru(py::handle x, py::handle cu_seqlens, py::handle weights, py::handle h0, py::handle reverse,
               bool return_reserve, bool recompute) {
    RecurrentLayer layer("gru", x, cu_seqlens, weights, h0, reverse, gates);
    GruForward args{};
    static_cast<Gru&>(args) = shape_of(layer);
    args.ldo = layer.directions * layer.hidden;
    args.keeps_gates = return_reserve && !recompute;
    args.gate_rows = args.keeps_gates ? layer.tokens : layer.rows_of_gates(args.ldg);
    const i64 h_shape[] = {layer.directions, layer.batch, layer.hidden};
    const py::object out = new_rows(layer.tokens, args.ldo), h_n = new_floats(h_shape, 3);
    std::vector<Kept> kept;
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        kept.push_back(set_forward(d, layer, i, out, h_n, args.gate_rows, args.ldg));
        d.bias_hh = layer.weights[static_cast<std::size_t>(i)].bias_hh.as<float>();
    }
    compute(&KernelTable::gru_forward, args);
    if (!return_reserve) return py::make_tuple(out, h_n);
    py::list reserve;
    for (const Kept& k : kept)
        reserve.append(py::make_tuple(recompute ? py::object(py::none()) : k.gates, k.x_rows, k.h_rows, py::none()));
    return py::make_tuple(out, h_n, py::tuple(reserve));
}

py::object gru_backward(py::handle dout, py::handle dh_n, py::handle x, py::handle cu_seqlens, py::handle weights,
                        py::handle reserve, py::handle h0, py::handle reverse, bool need_dx, bool need_dweights,
                        py::handle dweights) {
    RecurrentLayer layer("gru_backward", x, cu_seqlens, weights, h0, reverse, gates);
    RecurrentGradients gradients(layer, dout, dh_n, reserve, need_dx, need_dweights, dweights);
    GruBackward args{};
    static_cast<Gru&>(args) = shape_of(layer);
    args.ldo = gradients.ldo();
    args.ldd = gates * layer.hidden + padding_of_gates;
    Buffers& buffers = gradients.buffers;
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        gradients.set(d, layer, i);
        d.gates = d.hh_panels ? buffers.rows(layer.tokens, args.ldg) : gradients.kept(i, 0, layer.tokens, args.ldg);
        d.dgates_x = buffers.rows(layer.tokens, args.ldd);
        d.dgates_h = buffers.rows(layer.tokens, args.ldd);
        const RecurrentWeights& w = layer.weights[static_cast<std::size_t>(i)];
        d.bias_hh = w.bias_hh.as<float>();
        if (!w.bias_hh) continue;
        d.dbias_hh = gradients.weight(i, 3, "dbias_hh", {gates * layer.hidden}, d.add_to_dbias_hh);
        if (!d.block_sums) d.block_sums = buffers.rows(sum_blocks(layer.tokens), gates * layer.hidden);
    }
    compute(&KernelTable::gru_backward, args);
    return py::make_tuple(gradients.dx(), gradients.dweights(), gradients.dh0);
}

}  // namespace

void bind_gru(py::module_& m) {
    m.def("gru", &gru);
    m.def("gru_backward", &gru_backward);
}

}  // namespace fastattn::bindings
