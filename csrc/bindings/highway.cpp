#include <algorithm>

#include "bindings.h"
#include "recurrent.h"

namespace fastattn::bindings {
namespace {

struct Operands {
    Operands(const char* f, py::handle x_, py::handle weight_)
        : x(floats(f, "x", x_).expect_contiguous_rows()), dim(x.last()), weight(f, "weight", weight_, 1) {
        weight.expect_shape(2 * dim, dim);
        std::copy(x.shape, x.shape + x.ndim, projection);
        projection[x.ndim - 1] = 2 * dim;
    }
    template <typename Args>
    void fill(Args& args) const {
        args.x = x.as<float>();
        args.rows = x.rows();
        args.ldx = x.row_stride();
        args.dim = dim;
        args.panels = weight.own_panels();
        args.weight = weight.array.as<float>();
        args.ldw = weight.is_packed() ? 0 : weight.array.stride[0];
    }

    Array x;
    i64 dim;
    RecurrentWeight weight;
    i64 projection[Array::max_ndim];  // its shape
};

py::object highway(py::handle x, py::handle weight, py::handle bias_, bool return_projection, py::handle out_) {
    const char* const f = "highway";
    const Operands operands(f, x, weight);
    HighwayForward args{};
    operands.fill(args);
    const Array bias = floats(f, "bias", bias_).expect_shape({2 * operands.dim}).expect_contiguous();
    args.bias = bias.as<float>();
    const Output out(f, "out", out_, operands.x);
    args.y = out.apart_from(operands.x, true).apart_from(operands.weight.array).apart_from(bias).data();
    py::object projection;
    if (return_projection || !operands.weight.is_packed()) {
        projection = new_floats(operands.projection, operands.x.ndim);
        args.projection = data_of(projection);
    }
    compute(&KernelTable::highway_forward, args);
    if (return_projection) return py::make_tuple(out.object, projection);
    return out.object;
}

py::object highway_backward(py::handle dy_, py::handle x, py::handle weight, py::handle projection_, bool need_dx,
                            bool need_dweight, bool need_dbias, py::handle dweight_, py::handle dbias_) {
    const char* const f = "highway_backward";
    const Array dy = floats(f, "dy", dy_).expect_contiguous_rows();
    const Operands operands(f, x, weight);
    HighwayBackward args{};
    operands.fill(args);
    args.dy = dy.expect_shape_of(operands.x).as<float>();
    args.lddy = dy.row_stride();
    const Array projection = floats(f, "projection", projection_).expect_contiguous();
    const i64 ndim = operands.x.ndim, width = 2 * operands.dim;
    if (projection.ndim != ndim || !std::equal(projection.shape, projection.shape + ndim, operands.projection))
        value_error(projection.where.str() + " must have shape " + shape_text(operands.projection, ndim) + ", got " +
                    projection.shape_str());
    args.projection = projection.as<float>();

    py::object dx = py::none(), dweight = py::none(), dbias = py::none(), block_sums;
    if (need_dx) {
        dx = new_floats(operands.x.shape, ndim);
        args.dx = data_of(dx);
    }
    if (need_dweight) {
        const i64 shape[] = {width, operands.dim};
        const Output out(f, "dweight", dweight_, shape, 2);
        out.apart_from(dy).apart_from(operands.x).apart_from(operands.weight.array).apart_from(projection);
        args.dweight = out.data();
        args.add_to_dweight = !dweight_.is_none();
        dweight = out.object;
    }
    if (need_dbias) {
        const Output out(f, "dbias", dbias_, &width, 1);
        out.apart_from(dy).apart_from(operands.x).apart_from(operands.weight.array).apart_from(projection);
        if (need_dweight) out.apart_from(floats(f, "dweight", dweight));
        args.dbias = out.data();
        args.add_to_dbias = !dbias_.is_none();
        const i64 shape[] = {sum_blocks(args.rows), width};
        block_sums = new_floats(shape, 2);
        args.block_sums = data_of(block_sums);
        dbias = out.object;
    }
    if (need_dx || need_dweight || need_dbias) {
        const py::object d = new_floats(operands.projection, ndim);
        args.d = data_of(d);
        compute(&KernelTable::highway_backward, args);
    }
    return py::make_tuple(dx, dweight, dbias);
}

}  // namespace

void bind_highway(py::module_& m) {
    m.def("highway", &highway);
    m.def("highway_backward", &highway_backward);
}

}  // namespace fastattn::bindings
