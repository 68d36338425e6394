#include "bindings.h"

namespace fastattn::bindings {
namespace {

constexpr Choice<Pooling> modes[] = {
    {"mean", Pooling::mean},
    {"cls", Pooling::cls},
    {"max", Pooling::max},
    {"last", Pooling::last},
    {"mean_sqrt_len", Pooling::mean_sqrt_len},
    {"weighted_mean", Pooling::weighted_mean},
};

// The arguments that both passes share. The caller keeps the result for as long as args.
template <typename Args>
Copy<std::int32_t> fill(Args& args, const char* f, const Array& x, const Array& cu, py::handle mode) {
    x.expect_ndim(2).expect_contiguous_rows();
    args.x = x.as<float>();
    args.ldx = x.row_stride();
    args.dim = x.last();
    Copy<std::int32_t> offsets = cu_seqlens(cu, x.shape[0]);
    args.cu_seqlens = offsets.get();
    args.batch = cu.shape[0] - 1;
    args.mode = choose(f, "mode", mode, modes);
    return offsets;
}

py::object pooling(py::handle x_, py::handle cu_seqlens_, py::handle mode, py::handle out_) {
    const char* const f = "pooling";
    const Array x = floats(f, "x", x_), cu = array(f, "cu_seqlens", cu_seqlens_, Dtype::int32);
    PoolingForward args{};
    const auto offsets = fill(args, f, x, cu, mode);
    const Output out(f, "out", out_, {args.batch, args.dim});
    args.y = out.apart_from(x).apart_from(cu).data();
    compute(&KernelTable::pooling_forward, args);
    return out.object;
}

py::object pooling_backward(py::handle dy_, py::handle x_, py::handle cu_seqlens_, py::handle mode, py::handle out_) {
    const char* const f = "pooling_backward";
    const Array x = floats(f, "x", x_), cu = array(f, "cu_seqlens", cu_seqlens_, Dtype::int32);
    PoolingBackward args{};
    const auto offsets = fill(args, f, x, cu, mode);
    const Array dy = floats(f, "dy", dy_).expect_shape({args.batch, args.dim}).expect_contiguous_rows();
    args.dy = dy.as<float>();
    args.lddy = dy.row_stride();
    const Output out(f, "out", out_, x.shape);
    args.dx = out.apart_from(x).apart_from(dy).apart_from(cu).data();
    compute_now(&KernelTable::pooling_backward, args);
    return out.object;
}

}  // namespace

void bind_pooling(py::module_& m) {
    m.def("pooling", &pooling);
    m.def("pooling_backward", &pooling_backward);
}

}  // namespace fastattn::bindings
