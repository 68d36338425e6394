#include <cmath>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

using Strides = ScaledDotProductAttention::Strides;
constexpr i64 max_head_dim = 256;
constexpr Choice<bool> alignments[] = {{"bottom_right", false}, {"top_left", true}};

Strides strides(const Array& x, bool ragged) {
    if (ragged) return {0, x.stride[0], x.stride[1]};
    return {x.stride[0], x.stride[2], x.stride[1]};
}

// The checked inputs that both passes share.
struct Inputs {
    Array q, k, v, cu_seqlens_q, cu_seqlens_k, mask, position_bias;
    Copy<std::int32_t> offsets_q, offsets_k;
    bool ragged;
};

void set_mask(const char* f, ScaledDotProductAttention& args, Inputs& in, py::handle object) {
    const bool boolean = is_array_of(object, Dtype::boolean);
    if (!boolean && !is_array_of(object, Dtype::float32))
        type_error(std::string(f) + ": attn_mask must be an array of bool (True = may attend) or float32, got " +
                   (py::isinstance<py::array>(object) ? shown(object.attr("dtype"))
                                                      : std::string(Py_TYPE(object.ptr())->tp_name)));
    in.mask = array(f, "attn_mask", object, boolean ? Dtype::boolean : Dtype::float32);
    const Array& mask = in.mask;
    const Shape wanted{args.batch, args.heads, args.seqlen_q, args.seqlen_k};
    bool fits = mask.shape.ndim <= 4;
    for (int i = 0; i < 4 && fits; ++i) {
        const int axis = mask.shape.ndim - 4 + i;  // NumPy's broadcasting: axes are matched from the last one
        const i64 have = axis < 0 ? 1 : mask.shape[axis];
        fits = have == wanted[i] || have == 1;
        args.mask_stride[i] = axis < 0 || have == 1 ? 0 : mask.stride[axis];
    }
    if (!fits)
        value_error(mask.where.str() + " must be broadcastable to " + wanted.str() + ", got " + mask.shape.str());
    args.mask = mask.data;
    args.mask_kind = boolean ? MaskKind::boolean : MaskKind::additive;
}

void set_position_bias(const char* f, ScaledDotProductAttention& args, Inputs& in, py::handle object) {
    in.position_bias = optional_floats(f, "position_bias", object);
    if (!in.position_bias) return;
    const Array& table = in.position_bias.expect_ndim(2).expect_contiguous();
    const i64 distances = table.shape[0];
    table.expect_shape({distances, args.heads});
    if (distances % 2 == 0)
        value_error(table.where.str() + " must have a row for each distance from -n to n, got shape " +
                    table.shape.str());
    args.position_bias = table.as<float>();
    args.max_distance = distances / 2;
}

// Two integers; -1 is no limit.
void set_window(const char* f, ScaledDotProductAttention& args, py::handle object) {
    args.left = args.right = args.no_limit;
    if (object.is_none()) return;
    const py::tuple sides = items(f, "window", object, 2, 2);
    i64* const limits[] = {&args.left, &args.right};
    for (std::size_t i = 0; i < 2; ++i) {
        const i64 side = integer(f, "window", sides[i]);
        if (side < -1)
            value_error(std::string(f) + ": window must be integers >= 0, or -1 for no limit, got " + shown(object));
        if (side >= 0) *limits[i] = std::min(side, args.no_limit);
    }
}

Inputs set_inputs(const char* f, ScaledDotProductAttention& args, py::handle q_, py::handle k_, py::handle v_,
                  py::handle cu_seqlens_q_, py::handle cu_seqlens_k_, py::handle attn_mask_, py::handle position_bias,
                  py::handle window, py::handle is_causal, py::handle softmax_scale, py::handle causal_alignment,
                  py::handle dropout_p, py::handle seed) {
    Inputs in;
    in.ragged = !cu_seqlens_q_.is_none();
    const int ndim = in.ragged ? 3 : 4;
    const Array q = in.q = floats(f, "q", q_).expect_ndim(ndim).expect_contiguous_rows();
    const Array k = in.k = floats(f, "k", k_).expect_ndim(ndim).expect_contiguous_rows();
    const Array v = in.v = floats(f, "v", v_).expect_ndim(ndim).expect_contiguous_rows();
    args.head_dim = q.last();
    args.heads = q.shape[1];
    if (args.head_dim < 1 || args.head_dim > max_head_dim)
        value_error(q.where.str() + " must have a head dimension from 1 to 256, got shape " + q.shape.str());
    if (in.ragged) {
        k.expect_shape({k.shape[0], args.heads, args.head_dim});
        in.cu_seqlens_q = array(f, "cu_seqlens_q", cu_seqlens_q_, Dtype::int32);
        in.offsets_q = cu_seqlens(in.cu_seqlens_q, q.shape[0]);
        args.cu_seqlens_q = in.offsets_q.get();
        args.batch = in.cu_seqlens_q.shape[0] - 1;
        in.cu_seqlens_k =
            cu_seqlens_k_.is_none() ? in.cu_seqlens_q : array(f, "cu_seqlens_k", cu_seqlens_k_, Dtype::int32);
        in.offsets_k = cu_seqlens(in.cu_seqlens_k, k.shape[0]);
        args.cu_seqlens_k = in.offsets_k.get();
        in.cu_seqlens_k.expect_shape({args.batch + 1});
        args.total_q = q.shape[0];
        args.seqlen_q = longest(args.cu_seqlens_q, args.batch);
        args.seqlen_k = longest(args.cu_seqlens_k, args.batch);
        if (!attn_mask_.is_none())
            value_error(std::string(f) +
                        ": attn_mask goes with padded q [batch, heads, seq, dim], not with cu_seqlens_q");
    } else {
        if (!cu_seqlens_k_.is_none()) value_error(std::string(f) + ": cu_seqlens_k must be given with cu_seqlens_q");
        k.expect_shape({q.shape[0], args.heads, k.shape[2], args.head_dim});
        args.batch = q.shape[0];
        args.total_q = args.batch * q.shape[2];
        args.seqlen_q = q.shape[2];
        args.seqlen_k = k.shape[2];
    }
    v.expect_shape(k.shape);
    args.q = q.as<float>();
    args.k = k.as<float>();
    args.v = v.as<float>();
    args.q_stride = strides(q, in.ragged);
    args.k_stride = strides(k, in.ragged);
    args.v_stride = strides(v, in.ragged);
    if (!attn_mask_.is_none()) set_mask(f, args, in, attn_mask_);
    set_position_bias(f, args, in, position_bias);
    set_window(f, args, window);
    if (boolean(f, "is_causal", is_causal)) args.right = 0;
    args.top_left = choose(f, "causal_alignment", causal_alignment, alignments);
    args.scale = softmax_scale.is_none() ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(args.head_dim)))
                                         : static_cast<float>(positive(f, "softmax_scale", softmax_scale));
    args.dropout = dropout(f, "dropout_p", dropout_p, seed);
    return in;
}

py::object attention(py::handle q, py::handle k, py::handle v, py::handle cu_seqlens_q, py::handle cu_seqlens_k,
                     py::handle attn_mask, py::handle position_bias, py::handle window, py::handle is_causal,
                     py::handle softmax_scale, py::handle causal_alignment, py::handle dropout_p, py::handle seed,
                     py::handle return_softmax_lse, py::handle return_attn_weights, py::handle out_) {
    const char* const f = "scaled_dot_product_attention";
    ScaledDotProductAttentionForward args{};
    const Inputs in = set_inputs(f, args, q, k, v, cu_seqlens_q, cu_seqlens_k, attn_mask, position_bias, window,
                                 is_causal, softmax_scale, causal_alignment, dropout_p, seed);
    const Output out(f, "out", out_, in.q.shape);
    for (const Array* input : {&in.q, &in.k, &in.v, &in.mask, &in.position_bias, &in.cu_seqlens_q, &in.cu_seqlens_k})
        out.apart_from(*input);
    args.out = out.data();
    args.out_stride = strides(out.array(), in.ragged);
    py::list results;
    results.append(out.object);
    if (boolean(f, "return_softmax_lse", return_softmax_lse)) {
        py::object lse = new_floats(in.ragged ? Shape{args.heads, args.total_q} : in.q.shape.without_last());
        args.softmax_lse = data_of(lse);
        results.append(lse);
    }
    if (boolean(f, "return_attn_weights", return_attn_weights)) {
        py::object weights = new_floats({args.batch, args.heads, args.seqlen_q, args.seqlen_k}, true);
        args.attn_weights = data_of(weights);
        results.append(weights);
    }
    compute(&KernelTable::scaled_dot_product_attention_forward, args);
    if (results.size() == 1) return out.object;
    return py::tuple(results);
}

// A gradient of `like`: a new array, or the given one, which may be a strided view.
struct Gradient {
    Gradient(const char* f, const char* argument, py::handle given, const Array& like) {
        object = given.is_none() ? new_floats(like.shape) : py::reinterpret_borrow<py::object>(given);
        array = floats(f, argument, object).expect_shape(like.shape).expect_contiguous_rows();
        if (!py::reinterpret_borrow<py::array>(object).writeable())
            value_error(array.where.str() + " must be writable, got a read-only array");
        if (array.overlaps_itself()) value_error(array.where.str() + " must not overlap itself");
    }
    py::object object;
    Array array;
};

py::object attention_backward(py::handle dout_, py::handle q, py::handle k, py::handle v, py::handle out_,
                              py::handle softmax_lse, py::handle cu_seqlens_q, py::handle cu_seqlens_k,
                              py::handle attn_mask, py::handle position_bias, py::handle window, py::handle is_causal,
                              py::handle softmax_scale, py::handle causal_alignment, py::handle dropout_p,
                              py::handle seed, py::handle need_dposition_bias, py::handle dq_, py::handle dk_,
                              py::handle dv_) {
    const char* const f = "scaled_dot_product_attention_backward";
    ScaledDotProductAttentionBackward args{};
    const Inputs in = set_inputs(f, args, q, k, v, cu_seqlens_q, cu_seqlens_k, attn_mask, position_bias, window,
                                 is_causal, softmax_scale, causal_alignment, dropout_p, seed);
    const Array dout = floats(f, "dout", dout_).expect_shape(in.q.shape).expect_contiguous_rows();
    const Array out = floats(f, "out", out_).expect_shape(in.q.shape).expect_contiguous_rows();
    const Array lse = floats(f, "softmax_lse", softmax_lse).expect_contiguous();
    if (in.ragged)
        lse.expect_shape({args.heads, args.total_q});
    else
        lse.expect_shape({args.batch, args.heads, args.seqlen_q});
    args.dout = dout.as<float>();
    args.dout_stride = strides(dout, in.ragged);
    args.out = out.as<float>();
    args.out_stride = strides(out, in.ragged);
    args.softmax_lse = lse.as<float>();
    const Gradient dq(f, "dq", dq_, in.q), dk(f, "dk", dk_, in.k), dv(f, "dv", dv_, in.v);
    for (const Gradient* gradient : {&dq, &dk, &dv})
        for (const Array* input :
             {&in.q, &in.k, &in.v, &in.mask, &in.position_bias, &in.cu_seqlens_q, &in.cu_seqlens_k, &dout, &out, &lse})
            if (*input && gradient->array.overlaps(*input))
                value_error(gradient->array.where.str() + " must not overlap " + input->where.argument);
    const auto expect_apart = [](const Gradient& a, const Gradient& b) {
        if (!a.array.overlaps(b.array) || a.array.interleaves(b.array)) return;
        if (py::module_::import("numpy").attr("shares_memory")(a.object, b.object).cast<bool>())
            value_error(b.array.where.str() + " must not overlap " + a.array.where.argument);
    };
    expect_apart(dq, dk);
    expect_apart(dq, dv);
    expect_apart(dk, dv);
    args.dq = dq.array.as<float>();
    args.dk = dk.array.as<float>();
    args.dv = dv.array.as<float>();
    args.dq_stride = strides(dq.array, in.ragged);
    args.dk_stride = strides(dk.array, in.ragged);
    args.dv_stride = strides(dv.array, in.ragged);
    py::object dposition_bias = py::none(), bias_sums;
    if (boolean(f, "need_dposition_bias", need_dposition_bias) && in.position_bias) {
        const i64 distances = in.position_bias.shape[0];
        args.dposition_bias = data_of(dposition_bias = new_floats(in.position_bias.shape));
        args.bias_sums = data_of(bias_sums = new_floats({bias_chunks(args.batch), args.heads, distances}));
    }
    compute_now(&KernelTable::scaled_dot_product_attention_backward, args);
    if (!in.position_bias) return py::make_tuple(dq.object, dk.object, dv.object);
    return py::make_tuple(dq.object, dk.object, dv.object, dposition_bias);
}

}  // namespace

void bind_scaled_dot_product_attention(py::module_& m) {
    m.def("scaled_dot_product_attention", &attention);
    m.def("scaled_dot_product_attention_backward", &attention_backward);
}

}  // namespace fastattn::bindings
