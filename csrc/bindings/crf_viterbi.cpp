#include "crf.h"

namespace fastattn::bindings {
namespace {

constexpr i64 most_ways = i64{1} << 24;  // what a float counts

py::object crf_viterbi(py::handle emissions, py::handle cu_seqlens, py::handle transitions, py::handle start,
                       py::handle end, py::handle n) {
    const char* const f = "crf_viterbi";
    CrfViterbiForward args{};
    const CrfArrays given = fill_crf(args, f, emissions, cu_seqlens, transitions, start, end);
    args.tokens = given.emissions.shape[0];
    args.n = integer(f, "n", n);
    if (args.n < 1 || args.n > most_ways / args.num_tags)
        value_error(std::string(f) + ": n must be from 1 to " + std::to_string(most_ways / args.num_tags) +
                    ", 2^24 divided by the number of tags, got " + std::to_string(args.n));
    const py::object scores = new_floats({args.batch, args.n});
    const py::object back = new_floats({args.tokens, args.n, args.num_tags});
    py::array_t<i64> tags({args.n, args.tokens});
    args.scores = data_of(scores);
    args.back = data_of(back);
    args.tags = tags.mutable_data();
    compute_now(&KernelTable::crf_viterbi_forward, args);
    return py::make_tuple(tags, scores);
}

}  // namespace

void bind_crf_viterbi(py::module_& m) { m.def("crf_viterbi", &crf_viterbi); }

}  // namespace fastattn::bindings
