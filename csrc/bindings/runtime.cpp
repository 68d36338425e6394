#include <pybind11/stl.h>

#include <chrono>

#include "../dispatch.h"
#include "../limits.h"
#include "../memory.h"
#include "../parallel.h"
#include "../processor.h"
#include "arrays.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

py::dict build_info() {
    py::dict info;
#if defined(__clang__)
    info["compiler"] = "Clang " __clang_version__;
#else
    info["compiler"] = "GCC " __VERSION__;
#endif
    info["isas"] = py::str(FASTATTN_BUILT_ISAS).attr("split")(",");
    info["openmp"] = has_openmp();
    return info;
}

double fma_peak(double seconds) {
    if (!(seconds > 0 && seconds <= 10))
        value_error("fma_peak: seconds must be in (0, 10], got " + std::to_string(seconds));
    using clock = std::chrono::steady_clock;
    double flops_of[64] = {};
    const i64 threads = std::min(num_threads(), 64);
    const auto begin = clock::now();
    const auto burst = [&](i64 thread, i64, float*) {
        const auto begin = clock::now();
        do flops_of[thread] += kernels().fma_burst(20000);
        while (std::chrono::duration<double>(clock::now() - begin).count() < seconds);
    };
    unprofiled([&] { without_lock([&] { parallel_for(threads, 1, burst); }); });
    const double elapsed = std::chrono::duration<double>(clock::now() - begin).count();
    double total = 0;
    for (const double flops : flops_of) total += flops;
    return total / elapsed * 1e-9;
}

}  // namespace

void bind_runtime(py::module_& m) {
    m.def("isa", &isa);
    m.def("isa_reason", &isa_reason);
    m.def("available_isas", &available_isas);
    m.def("use_isa", [](py::handle name) { use_isa(text("use_isa", "name", name)); }, py::arg("name"));
    m.def(
        "dot_product",
        []() -> py::object {
            if (has_dot_product(DotProduct::avx512_vnni)) return py::str("AVX512-VNNI");
            if (has_dot_product(DotProduct::neon_dotprod)) return py::str("dotprod");
            return py::none();
        },
        "The processor's instruction for products of bytes, if it has one and it is allowed.");
    m.def("allow_dot_product", &allow_dot_product, py::arg("allowed"),
          "Whether kernels may use it. The results have the same bits.");
    m.def("num_threads", &num_threads);
    m.def("num_threads_reason", &num_threads_reason);
    m.def("set_num_threads", &set_num_threads, py::arg("n"));
    m.def("cpu_name", &cpu_name, py::arg("cpuinfo") = "/proc/cpuinfo");
    m.def("cpu_quota", &cpu_quota, py::arg("files") = "",
          "The processors that the control groups grant, 0 for no limit.");
    m.def("build_info", &build_info);
    m.def("keep_memory", &keep_memory, "From now on, reuse the memory of large results after they are freed.");
    m.def("kept_memory", &kept_memory, "The number of bytes kept for reuse.");
    m.def(
        "empty_memory",
        [] {
            free_scratch();
            without_lock([] { empty_memory(); });
        },
        "Return them, the scratch memory of kernels and what malloc keeps to the system.");
    m.def("fma_peak", &fma_peak, py::arg("seconds"),
          "The GFLOP/s that num_threads() threads reach with only FMAs on registers.");
}

}  // namespace fastattn::bindings
