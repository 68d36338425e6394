// Shared by the bindings of lstm and gru: a layer's arguments, its two passes, and what the first keeps for the second.
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "../memory.h"
#include "../parallel.h"
#include "weight.h"

namespace fastattn::bindings {

constexpr double infinite = std::numeric_limits<double>::infinity();
constexpr i64 padding_of_gates = 16;  // floats between rows of gates, see Recurrent
constexpr std::size_t most_floats = std::size_t{PTRDIFF_MAX} / sizeof(float);

// Arrays that live as long as this object.
class Buffers {
public:
    float* rows(i64 count, i64 columns);

private:
    std::vector<py::object> arrays_;
};

// The order in which a layer steps through its sequences: see Sequences.
class SequenceOrder {
public:
    SequenceOrder() = default;
    SequenceOrder(const Array& cu_seqlens, i64 tokens);
    Sequences sequences() const { return {cu_seqlens.get(), order_.get(), step_begin_.get(), batch, tokens, steps}; }
    bool is_token_order(bool reverse) const;  // time-major rows have the order of the tokens

    Copy<std::int32_t> cu_seqlens;
    i64 batch = 0, tokens = 0, steps = 0;

private:
    Copy<i64> order_, step_begin_;
};

// One direction: (weight_ih, weight_hh, bias, weight_hr) for an LSTM, which has four gates, or (weight_ih, weight_hh,
// bias_ih, bias_hh) for a GRU, which has three.
class DirectionWeights {
public:
    DirectionWeights() = default;
    DirectionWeights(const char* function, py::handle tuple, i64 gates);
    Weight ih, hh, hr;
    Array bias_ih, bias_hh;

private:
    py::tuple owned_;
};

// The checked arguments that all passes share.
class RecurrentLayer {
public:
    RecurrentLayer(const char* function, i64 gates, py::handle x, py::handle cu_seqlens, py::handle weights,
                   py::handle h0, py::handle reverse);

    const Array& x(i64 direction) const { return x_[shares_x ? 0 : direction]; }
    bool is_gathered(i64 direction) const { return !order.is_token_order(reverse[direction]); }  // x, time-major
    Shape states(i64 dim) const { return {directions, batch, dim}; }
    Array optional_states(const char* argument, py::handle object, i64 dim) const;
    // Direction i's part of an array [directions, batch, dim], or null.
    float* part(float* states, i64 i, i64 dim) const { return states ? states + i * batch * dim : nullptr; }
    const float* part(const Array& states, i64 i, i64 dim) const { return part(states.as<float>(), i, dim); }
    void fill(Recurrent& args) const;
    bool has_own_panels() const;

    const char* function;
    i64 gates, directions;
    bool shares_x;  // all directions read one array
    SequenceOrder order;
    bool reverse[most_directions];
    DirectionWeights weights[most_directions];
    Array h0;
    i64 tokens, batch, input, hidden, width;            // of h
    double cell_clip = infinite, proj_clip = infinite;  // of an LSTM

private:
    py::tuple given_weights_, given_x_;
    Array x_[most_directions];
};

// What a forward pass keeps. Python passes it to the backward pass and does not look inside.
class RecurrentReserve {
public:
    explicit RecurrentReserve(const RecurrentLayer& layer);
    // The reserve passed from Python, refused if it comes from another call.
    static const RecurrentReserve& of(const RecurrentLayer& layer, py::handle object);

    Buffers buffers;
    struct Direction {
        float *gates, *x_rows, *h_rows, *c_rows;  // as in ForwardDirection; gates are null if they are not kept
    } direction[most_directions] = {};

private:
    i64 gates_ = 0;
    Shape sizes_;
    std::vector<bool> reverse_;
    std::vector<std::int32_t> cu_seqlens_;
    bool has_h0_ = false;
    double cell_clip_ = infinite, proj_clip_ = infinite;
};

}  // namespace fastattn::bindings

template <>
struct pybind11::detail::type_caster<fastattn::bindings::RecurrentReserve>
    : fastattn::bindings::InitializedCaster<fastattn::bindings::RecurrentReserve> {};

namespace fastattn::bindings {

// A forward pass, which takes the memory that is not kept for the backward pass when it runs.
template <typename Args>
struct RecurrentCall {
    Args args;  // the first, for the profile
    bool is_gathered[most_directions];

    // f(pointer, rows, columns) for each array that is still to be had.
    template <typename F>
    static void for_arrays(Args& args, const bool* is_gathered, const F& f) {
        for (i64 i = 0; i < args.directions; ++i) {
            auto& d = args.direction[i];
            if (!d.gates) f(d.gates, args.gate_rows, args.ldg);
            if (!d.x_rows && is_gathered[i]) f(d.x_rows, args.sequences.tokens, args.input);
            if (!d.h_rows) f(d.h_rows, args.sequences.batch + args.sequences.tokens, args.width);
            if constexpr (std::is_same_v<Args, LstmForward>)
                if (d.hr_panels) f(d.m, args.sequences.batch, args.ldm);
        }
    }
    static void run(AnyKernel kernel, const void* job) {
        const auto& call = *static_cast<const RecurrentCall*>(job);
        constexpr std::size_t line = 64 / sizeof(float);
        Args args = call.args;
        std::size_t floats = 0;
        for_arrays(args, call.is_gathered, [&](float*, i64 rows, i64 columns) {
            std::size_t size;
            if (__builtin_mul_overflow(static_cast<std::size_t>(rows), static_cast<std::size_t>(columns), &size) ||
                __builtin_add_overflow(floats, (size + line - 1) / line * line, &floats) || floats > most_floats)
                throw std::bad_alloc();
        });
        std::optional<Temporary> large;  // fresh memory costs a fifth of a small layer
        if (floats > most_layer_scratch) large.emplace(floats * sizeof(float));
        float* next = large    ? static_cast<float*>(large->data())
                      : floats ? layer_scratch(static_cast<i64>(floats))
                               : nullptr;
        for_arrays(args, call.is_gathered, [&](float*& array, i64 rows, i64 columns) {
            array = next;
            next += (static_cast<std::size_t>(rows * columns) + line - 1) / line * line;
        });
        call_kernel<Args>(kernel, &args);
    }
};

class RecurrentForwardPass {
public:
    RecurrentForwardPass(RecurrentLayer& layer, RecurrentForward& args, bool return_reserve, bool recompute);
    void set(ForwardDirection& d, i64 i);
    py::object result(const Shape& shape) const { return Output(layer_.function, "out", py::none(), shape).object; }
    // At once if something that args point to ends with the layer, or is for Python to keep.
    template <typename Args>
    void compute(void (*KernelTable::*kernel)(const Args&), const Args& args) const {
        Pass* const pass = reserve || layer_.has_own_panels() ? nullptr : Pass::current();
        RecurrentCall<Args> call{args, {}};
        const auto chosen = reinterpret_cast<AnyKernel>(kernels_of_call().*kernel);
        for (i64 i = 0; i < layer_.directions; ++i) call.is_gathered[i] = layer_.is_gathered(i);
        if (pass) return pass->add(&RecurrentCall<Args>::run, chosen, call);
        compute_now(&RecurrentCall<Args>::run, chosen, call);
    }

    py::object out, h_n;
    std::unique_ptr<RecurrentReserve> reserve;  // if it is asked for

private:
    RecurrentLayer& layer_;
    const RecurrentForward& args_;
};

class RecurrentBackwardPass {
public:
    RecurrentBackwardPass(RecurrentLayer& layer, RecurrentBackward& args, py::handle dout, py::handle dh_n,
                          py::handle reserve, py::handle need_dx, py::handle need_dweights, py::handle dweights);
    void set(BackwardDirection& d, i64 i);
    // The gradient of weight `index` of direction i: the given array, to be added to, or a new one; null if unwanted.
    float* dweight(i64 i, std::size_t index, const char* name, const Shape& shape, bool& adds);
    py::object dx() const;
    py::object dweights() const;

    const RecurrentReserve& reserve;
    py::object dh0;
    Buffers buffers;

private:
    RecurrentLayer& layer_;
    const RecurrentBackward& args_;
    Array dout_, dh_n_;
    py::object dx_[most_directions];
    py::tuple given_[most_directions], dweights_[most_directions];
    bool need_dx_, need_dweights_;
};

}  // namespace fastattn::bindings
