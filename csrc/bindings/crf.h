// The arguments that crf and crf_viterbi share.
#pragma once

#include "bindings.h"

namespace fastattn::bindings {

// What the arguments of a kernel point to, and their shapes.
struct CrfArrays {
    Array emissions, transitions, start, end;
    Copy<std::int32_t> offsets;
};

// The caller keeps the result for as long as args.
inline CrfArrays fill_crf(Crf& args, const char* f, py::handle emissions, py::handle cu_seqlens_,
                          py::handle transitions, py::handle start, py::handle end) {
    CrfArrays a{floats(f, "emissions", emissions), floats(f, "transitions", transitions),
                floats(f, "start_transitions", start), floats(f, "end_transitions", end), nullptr};
    const Array cu = array(f, "cu_seqlens", cu_seqlens_, Dtype::int32);
    a.emissions.expect_ndim(2).expect_contiguous_rows();
    args.num_tags = a.emissions.shape[1];
    if (args.num_tags < 1)
        value_error(a.emissions.where.str() + " must have at least one column, got shape " + a.emissions.shape.str());
    args.emissions = a.emissions.as<float>();
    args.lde = a.emissions.row_stride();
    a.transitions.expect_shape({args.num_tags, args.num_tags}).expect_contiguous_rows();
    args.transitions = a.transitions.as<float>();
    args.ldt = a.transitions.row_stride();
    args.start_transitions = a.start.expect_shape({args.num_tags}).expect_contiguous().as<float>();
    args.end_transitions = a.end.expect_shape({args.num_tags}).expect_contiguous().as<float>();
    a.offsets = cu_seqlens(cu, a.emissions.shape[0]);
    args.cu_seqlens = a.offsets.get();
    args.batch = cu.shape[0] - 1;
    return a;
}

}  // namespace fastattn::bindings
