#include "pass.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <utility>
#ifdef __GLIBCXX__
#include <cxxabi.h>
#endif

#include "../denormals.h"
#include "../parallel.h"
#include "bindings.h"

namespace fastattn::bindings {
namespace {

thread_local Pass* of_thread = nullptr;  // while one is open
std::atomic<std::uint64_t> locks_given_up{0};
const bool poisons = std::getenv("FASTATTN_POISON") != nullptr;

}  // namespace

void count_lock() { locks_given_up.fetch_add(1, std::memory_order_relaxed); }

void take_lock(PyThreadState* state) {
#ifdef __GLIBCXX__
    try {
        PyEval_RestoreThread(state);
    } catch (const abi::__forced_unwind&) {  // how Python 3.13 and older end a thread
        for (;;) pause();
    }
#else
    PyEval_RestoreThread(state);
#endif
}

Pass* Pass::current() { return of_thread; }

void Pass::enter() {
    if (!of_thread) {
        of_thread = new Pass;
        of_thread->kernels_ = &fastattn::kernels();
    }
    ++of_thread->depth_;
}

void Pass::exit(bool failed) {
    if (!of_thread) throw std::runtime_error("a pass ends on the thread on which it began");
    if (--of_thread->depth_ > 0) return;
    const std::unique_ptr<Pass> pass(std::exchange(of_thread, nullptr));
    if (!failed) pass->run();
}

void Pass::run() {
    if (calls_.empty()) return;
    const std::vector<Call> calls = std::exchange(calls_, {});
    const auto objects = std::exchange(objects_, {});
    const auto memory = std::exchange(memory_, {});
    for (std::size_t next = 0; next < calls.size();) {
        without_lock([&] {
            using clock = std::chrono::steady_clock;
            const auto end = clock::now() + std::chrono::milliseconds(100);
            const FlushDenormals flush;  // what a kernel does between its loops, too
            const Together together;
            do {
                calls[next].call(calls[next].kernel, calls[next].args.get());
                ++next;
            } while (next < calls.size() && clock::now() < end);
        });
        if (next < calls.size() && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
}

void Pass::meet(const char* begin, const char* end) {
    if (poisons) met_.emplace_back(begin, end);
}

void Pass::poison(float* result, i64 count) {
    if (!poisons) return;
    const auto* const begin = reinterpret_cast<const char*>(result);
    const auto* const end = reinterpret_cast<const char*>(result + count);
    for (std::size_t i = 0; i + 1 < met_.size(); ++i)
        if (met_[i].first < end && begin < met_[i].second) return;
    std::fill_n(result, count, std::numeric_limits<float>::quiet_NaN());
}

void bind_pass(py::module_& m) {
    py::class_<Pass>(m, "Pass", "Kernels called in a `with` block of it are computed together at its end.")
        .def(py::init<>())
        .def("__enter__", [](py::handle self) { return Pass::enter(), self; })
        .def("__exit__", [](py::handle, py::handle type, py::handle, py::handle) { Pass::exit(!type.is_none()); });
    m.def("run_pass", &run_pass, "Compute what was called in this thread's pass, if there is one.");
    m.def("locks_given_up", [] { return locks_given_up.load(); }, "How often kernels gave up the interpreter's lock.");
    m.def("workers_woken", &workers_woken, "How often a caller woke sleeping workers.");
}

}  // namespace fastattn::bindings
