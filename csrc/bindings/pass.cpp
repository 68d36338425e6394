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

thread_local Pass of_thread;  // its memory is used again by the next one
std::atomic<std::uint64_t> locks{0};
const bool poisons = std::getenv("FASTATTN_POISON") != nullptr;

struct Scope {  // what Python's `with` holds: the pass is the thread's
    bool apart = false;
};

// Whether code that is not ours runs between the current frame and `last`, one of those that called it.
bool other_code_until(const void* last) {
    auto frame = py::reinterpret_borrow<py::object>(reinterpret_cast<PyObject*>(PyEval_GetFrame()));
    while (frame && frame.ptr() != last) {
        const py::object globals = frame.attr("f_globals");
        const py::handle name = PyDict_GetItemString(globals.ptr(), "__name__");
        const std::string module = name && PyUnicode_Check(name.ptr()) ? py::cast<std::string>(name) : "";
        if (module.rfind("fastattn.", 0) != 0 && module != "contextlib") return true;
        frame = py::reinterpret_steal<py::object>(
            reinterpret_cast<PyObject*>(PyFrame_GetBack(reinterpret_cast<PyFrameObject*>(frame.ptr()))));
    }
    return false;
}

}  // namespace

void count_lock() { locks.fetch_add(1, std::memory_order_relaxed); }
std::uint64_t locks_given_up() { return locks.load(std::memory_order_relaxed); }

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

Pass* Pass::current() { return of_thread.depth_ > 0 ? &of_thread : nullptr; }

bool Pass::enter() {
    if (of_thread.depth_++ > 0) return other_code_until(of_thread.frame_);
    of_thread.kernels_ = &fastattn::kernels();
    of_thread.frame_ = PyEval_GetFrame();
    return false;
}

void Pass::exit(bool failed, bool apart) {
    if (!current()) throw std::runtime_error("a pass ends on the thread on which it began");
    if (--of_thread.depth_ > 0) {
        if (apart && !failed) of_thread.run();
        return;
    }
    // Also what calls that were computed at once, or refused, have named. What Python does when an object goes may
    // begin with a list of its own.
    const auto clear = [] {
        List rest = std::exchange(of_thread.list_, {});
        rest.clear();
        if (of_thread.list_.is_empty()) std::swap(rest, of_thread.list_);  // for its memory
    };
    try {
        if (!failed) of_thread.run();
    } catch (...) {
        clear();
        throw;
    }
    clear();
}

void Pass::run() {
    if (list_.calls.empty()) return;
    List list = std::exchange(list_, {});
    const auto checked = list.objects.begin() + static_cast<std::ptrdiff_t>(list.of_calls);
    list_.objects.assign(checked, list.objects.end());
    list.objects.erase(checked, list.objects.end());
    list.compute();
    list.clear();
    if (list_.is_empty()) std::swap(list, list_);
}

void NoPass::enter() {
    run_pass();
    depth_ = std::exchange(of_thread.depth_, 0);
    kernels_ = of_thread.kernels_;
    frame_ = of_thread.frame_;
}

void NoPass::exit() {
    of_thread.depth_ = depth_;
    of_thread.kernels_ = kernels_;
    of_thread.frame_ = frame_;
}

void Pass::List::compute() const {
    for (std::size_t next = 0; next < calls.size();) {
        without_lock([&] {
            using clock = std::chrono::steady_clock;
            const auto end = clock::now() + std::chrono::milliseconds(100);
            const FlushDenormals flush;  // also covers what a kernel does between its loops
            const Together together;
            do {
                const Call& call = calls[next];
                run_kernel(call.call, call.kernel, &args[call.args]);
            } while (++next < calls.size() && clock::now() < end);
        });
        if (next < calls.size() && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
}

void Pass::List::clear() {
    calls.clear();
    args.clear();
    memory.clear();
    met.clear();
    of_calls = 0;
    for (PyObject* const object : objects) Py_DECREF(object);
    objects.clear();
}

void Pass::meet(const char* begin, const char* end) {
    if (poisons) list_.met.emplace_back(begin, end);
}

void Pass::poison(float* result, i64 count) {
    if (!poisons) return;
    const auto* const begin = reinterpret_cast<const char*>(result);
    const auto* const end = reinterpret_cast<const char*>(result + count);
    for (std::size_t i = 0; i + 1 < list_.met.size(); ++i)
        if (list_.met[i].first < end && begin < list_.met[i].second) return;
    std::fill_n(result, count, std::numeric_limits<float>::quiet_NaN());
}

void bind_pass(py::module_& m) {
    py::class_<Scope>(m, "Pass", "Kernels called in a `with` block of it are computed together at its end.")
        .def(py::init<>())
        .def("__enter__", [](py::handle self) { return self.cast<Scope&>().apart = Pass::enter(), self; })
        .def("__exit__",
             [](Scope& self, py::handle type, py::handle, py::handle) { Pass::exit(!type.is_none(), self.apart); });
    py::class_<NoPass>(m, "NoPass", "Kernels called in a `with` block of it are computed at once.")
        .def(py::init<>())
        .def("__enter__", [](py::handle self) { return self.cast<NoPass&>().enter(), self; })
        .def("__exit__", [](NoPass& self, py::handle, py::handle, py::handle) { self.exit(); });
    m.def("run_pass", &run_pass, "Compute what was called in this thread's pass, if there is one.");
}

}  // namespace fastattn::bindings
