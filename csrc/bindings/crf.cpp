#include "crf.h"

namespace fastattn::bindings {
namespace {

Copy<i64> tag_ids(const Array& tags, const Array& emissions) {
    const i64 num_tags = emissions.shape[1];
    return checked_copy<i64>(
        tags.expect_shape({emissions.shape[0]}), [&](i64 tag) { return tag >= 0 && tag < num_tags; },
        [&](i64 tag, i64 i) {
            value_error(tags.where.str() + " must be in [0, " + std::to_string(num_tags) +
                        "), the columns of emissions, got " + std::to_string(tag) + " at index " + std::to_string(i));
        });
}

py::object crf(py::handle emissions, py::handle tags_, py::handle cu_seqlens, py::handle transitions, py::handle start,
               py::handle end) {
    const char* const f = "crf";
    CrfForward args{};
    const CrfArrays given = fill_crf(args, f, emissions, cu_seqlens, transitions, start, end);
    const auto tags = tag_ids(array(f, "tags", tags_, Dtype::int64), given.emissions);
    const Output log_likelihood(f, "log_likelihood", py::none(), {args.batch});
    const Output alpha(f, "alpha", py::none(), given.emissions.shape);
    args.log_likelihood = log_likelihood.data();
    args.alpha = alpha.data();
    args.tags = tags.get();
    compute(&KernelTable::crf_forward, args);
    return py::make_tuple(log_likelihood.object, alpha.object);
}

py::object crf_backward(py::handle dlog_likelihood_, py::handle emissions, py::handle tags_, py::handle cu_seqlens,
                        py::handle transitions, py::handle start, py::handle end, py::handle log_likelihood_,
                        py::handle alpha_) {
    const char* const f = "crf_backward";
    CrfBackward args{};
    const CrfArrays given = fill_crf(args, f, emissions, cu_seqlens, transitions, start, end);
    const auto tags = tag_ids(array(f, "tags", tags_, Dtype::int64), given.emissions);
    const Array gradient = floats(f, "dlog_likelihood", dlog_likelihood_);
    const Array log_likelihood = floats(f, "log_likelihood", log_likelihood_), alpha = floats(f, "alpha", alpha_);
    args.tags = tags.get();
    args.dlog_likelihood = gradient.expect_shape({args.batch}).expect_contiguous().as<float>();
    args.log_likelihood = log_likelihood.expect_shape({args.batch}).expect_contiguous().as<float>();
    args.alpha = alpha.expect_shape(given.emissions.shape).expect_contiguous().as<float>();
    const py::object demissions = new_floats(given.emissions.shape), dtransitions = new_floats(given.transitions.shape);
    const py::object dstart = new_floats(given.start.shape), dend = new_floats(given.end.shape);
    const py::object chunk_sums = new_floats({crf_chunks(args.batch, args.num_tags), crf_sums(args.num_tags)});
    args.demissions = data_of(demissions);
    args.dtransitions = data_of(dtransitions);
    args.dstart_transitions = data_of(dstart);
    args.dend_transitions = data_of(dend);
    args.chunk_sums = data_of(chunk_sums);
    compute_now(&KernelTable::crf_backward, args);
    return py::make_tuple(demissions, dtransitions, dstart, dend);
}

}  // namespace

void bind_crf(py::module_& m) {
    m.def("crf", &crf);
    m.def("crf_backward", &crf_backward);
}

}  // namespace fastattn::bindings
