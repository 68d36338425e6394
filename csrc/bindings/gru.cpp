#include "bindings.h"
#include "recurrent.h"

namespace fastattn::bindings {
namespace {

constexpr i64 gates = 3;

py::object gru(py::handle x, py::handle cu_seqlens, py::handle weights, py::handle h0, py::handle reverse,
               py::handle return_reserve_, py::handle recompute) {
    RecurrentLayer layer("gru", gates, x, cu_seqlens, weights, h0, reverse);
    GruForward args{};
    const bool return_reserve = boolean(layer.function, "return_reserve", return_reserve_);
    RecurrentForwardPass pass(layer, args, return_reserve, boolean(layer.function, "recompute", recompute));
    for (i64 i = 0; i < layer.directions; ++i) {
        pass.set(args.direction[i], i);
        args.direction[i].bias_hh = layer.weights[i].bias_hh.as<float>();
    }
    pass.compute(&KernelTable::gru_forward, args);
    if (!return_reserve) return py::make_tuple(pass.out, pass.h_n);
    return py::make_tuple(pass.out, pass.h_n, std::move(pass.reserve));
}

py::object gru_backward(py::handle dout, py::handle dh_n, py::handle x, py::handle cu_seqlens, py::handle weights,
                        py::handle reserve, py::handle h0, py::handle reverse, py::handle need_dx,
                        py::handle need_dweights, py::handle dweights) {
    RecurrentLayer layer("gru_backward", gates, x, cu_seqlens, weights, h0, reverse);
    GruBackward args{};
    RecurrentBackwardPass pass(layer, args, dout, dh_n, reserve, need_dx, need_dweights, dweights);
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        pass.set(d, i);
        if (d.hh_panels) d.gates = pass.buffers.rows(layer.tokens, args.ldg);
        d.dgates_h = pass.buffers.rows(layer.tokens, args.ldd);
        d.bias_hh = layer.weights[i].bias_hh.as<float>();
        if (d.bias_hh) d.dbias_hh = pass.dweight(i, 3, "dbias_hh", {gates * layer.hidden}, d.add_to_dbias_hh);
    }
    compute_now(&KernelTable::gru_backward, args);
    return py::make_tuple(pass.dx(), pass.dweights(), pass.dh0);
}

}  // namespace

void bind_gru(py::module_& m) {
    m.def("gru", &gru);
    m.def("gru_backward", &gru_backward);
}

}  // namespace fastattn::bindings
