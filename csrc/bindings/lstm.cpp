#include "bindings.h"
#include "recurrent.h"

namespace fastattn::bindings {
namespace {

constexpr i64 gates = 4;

// Sets what an LSTM has beyond a GRU in both passes, except c0, which is returned.
Array set_lstm(Lstm& args, RecurrentLayer& layer, py::handle c0, py::handle cell_clip, py::handle proj_clip) {
    const auto clip = [&](const char* argument, py::handle value) {
        return value.is_none() ? infinite : positive(layer.function, argument, value);
    };
    args.ldm = layer.hidden + padding_of_gates;
    layer.cell_clip = clip("cell_clip", cell_clip);
    layer.proj_clip = clip("proj_clip", proj_clip);
    args.cell_clip = static_cast<float>(layer.cell_clip);
    args.proj_clip = static_cast<float>(layer.proj_clip);
    if (!proj_clip.is_none() && !layer.weights[0].hr)
        value_error(std::string(layer.function) + ": proj_clip clips a projection, and weight_hr is None");
    return layer.optional_states("c0", c0, layer.hidden);
}

py::object lstm(py::handle x, py::handle cu_seqlens, py::handle weights, py::handle h0, py::handle c0_,
                py::handle reverse, py::handle cell_clip, py::handle proj_clip, py::handle return_reserve_,
                py::handle recompute, py::handle residual_) {
    RecurrentLayer layer("lstm", gates, x, cu_seqlens, weights, h0, reverse);
    LstmForward args{};
    const Array c0 = set_lstm(args, layer, c0_, cell_clip, proj_clip);
    const bool return_reserve = boolean(layer.function, "return_reserve", return_reserve_);
    RecurrentForwardPass pass(layer, args, return_reserve, boolean(layer.function, "recompute", recompute));
    const py::object c_n = pass.result(layer.states(layer.hidden));
    const Array residual = optional_floats(layer.function, "residual", residual_);
    if (residual) args.ldr = residual.expect_shape({layer.tokens, args.ldo}).expect_contiguous_rows().stride[0];
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        pass.set(d, i);
        if (residual) d.residual = residual.as<float>() + i * layer.width;
        d.c_n = layer.part(data_of(c_n), i, layer.hidden);
        d.c0 = layer.part(c0, i, layer.hidden);
        if (return_reserve)
            d.c_rows = pass.reserve->direction[i].c_rows =
                pass.reserve->buffers.rows(layer.batch + layer.tokens, layer.hidden);
        Weight& hr = layer.weights[i].hr;
        if (!hr) continue;
        d.hr_panels = hr.panels();
    }
    pass.compute(&KernelTable::lstm_forward, args);
    if (!return_reserve) return py::make_tuple(pass.out, pass.h_n, c_n);
    return py::make_tuple(pass.out, pass.h_n, c_n, std::move(pass.reserve));
}

py::object lstm_backward(py::handle dout, py::handle dh_n, py::handle dc_n_, py::handle x, py::handle cu_seqlens,
                         py::handle weights, py::handle reserve, py::handle h0, py::handle c0, py::handle reverse,
                         py::handle cell_clip, py::handle proj_clip, py::handle need_dx, py::handle need_dweights,
                         py::handle dweights) {
    RecurrentLayer layer("lstm_backward", gates, x, cu_seqlens, weights, h0, reverse);
    LstmBackward args{};
    set_lstm(args, layer, c0, cell_clip, proj_clip);
    RecurrentBackwardPass pass(layer, args, dout, dh_n, reserve, need_dx, need_dweights, dweights);
    const Array dc_n = layer.optional_states("dc_n", dc_n_, layer.hidden);
    const py::object dc0 = new_floats(layer.states(layer.hidden));
    for (i64 i = 0; i < layer.directions; ++i) {
        auto& d = args.direction[i];
        pass.set(d, i);
        if (d.hh_panels) d.gates = d.dgates;
        d.c_rows = pass.reserve.direction[i].c_rows;
        d.dc_n = layer.part(dc_n, i, layer.hidden);
        d.dc0 = layer.part(data_of(dc0), i, layer.hidden);
        d.dc = pass.buffers.rows(layer.batch, layer.hidden);
        Weight& hr = layer.weights[i].hr;
        if (!hr) continue;
        d.hr_transposed_panels = hr.transposed_panels();
        d.dprojection = pass.buffers.rows(layer.tokens, layer.width);
        d.m = pass.buffers.rows(layer.tokens, args.ldm);
        if (hr.array) d.dweight_hr = pass.dweight(i, 3, "dweight_hr", {layer.width, layer.hidden}, d.add_to_dweight_hr);
    }
    compute_now(&KernelTable::lstm_backward, args);
    return py::make_tuple(pass.dx(), pass.dweights(), pass.dh0, dc0);
}

}  // namespace

void bind_lstm(py::module_& m) {
    m.def("lstm", &lstm);
    m.def("lstm_backward", &lstm_backward);
}

}  // namespace fastattn::bindings
