#include <cmath>

#include "../dispatch.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

using Strides = ScaledDotProductAttentionForward::Strides;
constexpr i64 max_head_dim = 256;
constexpr Choice<bool> alignments[] = {{"bottom_right", false}, {"top_left", true}};

Strides strides(const Array& x, bool ragged) {
    if (ragged) return {0, x.stride[0], x.stride[1]};
    return {x.stride[0], x.stride[2], x.stride[1]};
}

void set_mask(ScaledDotProductAttentionForward& args, const Array& mask, MaskKind kind) {
    const i64 wanted[] = {args.batch, args.heads, args.seqlen_q, args.seqlen_k};
    bool fits = mask.ndim <= 4;
    for (int i = 0; i < 4 && fits; ++i) {
        const int axis = mask.ndim - 4 + i;  // NumPy's broadcasting: axes are matched from the last one
        const i64 have = axis < 0 ? 1 : mask.shape[axis];
        fits = have == wanted[i] || have == 1;
        args.mask_stride[i] = axis < 0 || have == 1 ? 0 : mask.stride[axis];
    }
    if (!fits)
        value_error(mask.where.str() + " must be broadcastable to " + shape_text(wanted, 4) + ", got " +
                    mask.shape_str());
    args.mask = mask.data;
    args.mask_kind = kind;
}

py::object attention(py::handle q_, py::handle k_, py::handle v_, py::handle cu_seqlens_q_, py::handle cu_seqlens_k_,
                     py::handle attn_mask_, bool is_causal, py::handle softmax_scale, py::handle causal_alignment,
                     bool return_softmax_lse, bool return_attn_weights, py::handle out_) {
    const char* const f = "scaled_dot_product_attention";
    const bool ragged = !cu_seqlens_q_.is_none();
    const int ndim = ragged ? 3 : 4;
    const Array q = floats(f, "q", q_).expect_ndim(ndim).expect_contiguous_rows();
    const Array k = floats(f, "k", k_).expect_ndim(ndim).expect_contiguous_rows();
    const Array v = floats(f, "v", v_).expect_ndim(ndim).expect_contiguous_rows();

    ScaledDotProductAttentionForward args{};
    args.head_dim = q.last();
    args.heads = q.shape[1];
    if (args.head_dim < 1 || args.head_dim > max_head_dim)
        value_error(q.where.str() + " must have a head dimension from 1 to 256, got shape " + q.shape_str());
    Array cu_q, cu_k;
    if (ragged) {
        k.expect_shape({k.shape[0], args.heads, args.head_dim});
        cu_q = array(f, "cu_seqlens_q", cu_seqlens_q_, Dtype::int32);
        args.cu_seqlens_q = cu_seqlens(cu_q, q.shape[0]);
        args.batch = cu_q.shape[0] - 1;
        cu_k = cu_seqlens_k_.is_none() ? cu_q : array(f, "cu_seqlens_k", cu_seqlens_k_, Dtype::int32);
        args.cu_seqlens_k = cu_seqlens(cu_k, k.shape[0]);
        cu_k.expect_shape({args.batch + 1});
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
    v.expect_shape_of(k);
    args.q = q.as<float>();
    args.k = k.as<float>();
    args.v = v.as<float>();
    args.q_stride = strides(q, ragged);
    args.k_stride = strides(k, ragged);
    args.v_stride = strides(v, ragged);

    Array mask;
    if (!attn_mask_.is_none()) {
        const bool boolean = is_array_of(attn_mask_, Dtype::boolean);
        if (!boolean && !is_array_of(attn_mask_, Dtype::float32))
            type_error(std::string(f) + ": attn_mask must be an array of bool (True = may attend) or float32, got " +
                       (py::isinstance<py::array>(attn_mask_) ? std::string(py::str(attn_mask_.attr("dtype")))
                                                              : std::string(Py_TYPE(attn_mask_.ptr())->tp_name)));
        mask = array(f, "attn_mask", attn_mask_, boolean ? Dtype::boolean : Dtype::float32);
        set_mask(args, mask, boolean ? MaskKind::boolean : MaskKind::additive);
    }
    args.causal = is_causal;
    args.top_left = choose(f, "causal_alignment", causal_alignment, alignments);
    args.scale = softmax_scale.is_none() ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(args.head_dim)))
                                         : static_cast<float>(positive(f, "softmax_scale", softmax_scale));

    const Output out(f, "out", out_, q);
    out.apart_from(q).apart_from(k).apart_from(v).apart_from(mask).apart_from(cu_q).apart_from(cu_k);
    args.out = out.data();
    args.out_stride = strides(out.array(), ragged);
    py::list results;
    results.append(out.object);
    if (return_softmax_lse) {
        const i64 ragged_shape[] = {args.heads, args.total_q};
        py::object lse = ragged ? new_floats(ragged_shape, 2) : new_floats(q.shape, 3);
        args.softmax_lse = data_of(lse);
        results.append(lse);
    }
    if (return_attn_weights) {
        const i64 shape[] = {args.batch, args.heads, args.seqlen_q, args.seqlen_k};
        py::object weights = new_floats(shape, 4, true);
        args.attn_weights = data_of(weights);
        results.append(weights);
    }
    {
        const py::gil_scoped_release release;
        kernels().scaled_dot_product_attention_forward(args);
    }
    if (results.size() == 1) return out.object;
    return py::tuple(results);
}

}  // namespace

void bind_scaled_dot_product_attention(py::module_& m) { m.def("scaled_dot_product_attention", &attention); }

}  // namespace fastattn::bindings
