#include "pass.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <utility>

#include "../denormals.h"
#include "../parallel.h"
#include "bindings.h"
#include "restore_thread.h"

namespace fastattn::bindings {
namespace {

thread_local Pass of_thread;  // its memory is used again by the next one
std::atomic<std::uint64_t> locks{0};
const bool poisons = std::getenv("FASTATTN_POISON") != nullptr;

// A thread of plain Python keeps the interpreter's lock for 5 ms (sys.getswitchinterval()) after another asks for it. A
// pass that would wait so long for the lock computes with it instead, for as long as it would wait. Not where other
// threads have passes too: they would wait for each other, and find that the lock is dear.
using clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
struct Lock {
    static constexpr clock::duration none{0}, dear = milliseconds(1), most = milliseconds(5), valid = milliseconds(500),
                                              alone = milliseconds(1000);
    std::atomic<clock::duration> wait{none};  // for the lock, when it was last given up
    std::atomic<clock::time_point> until{clock::time_point()}, alone_since{clock::time_point()};
    std::atomic<const void*> last_thread{nullptr};

    clock::duration worth_keeping(const void* thread) {
#ifdef Py_GIL_DISABLED
        return none;
#endif
        if (last_thread.exchange(thread, std::memory_order_relaxed) != thread)
            alone_since.store(clock::now(), std::memory_order_relaxed);
        const clock::duration time = wait.load(std::memory_order_relaxed);
        if (time < dear) return none;
        const clock::time_point now = clock::now();
        if (now > until.load(std::memory_order_relaxed)) return none;
        return now > alone_since.load(std::memory_order_relaxed) + alone ? std::min(time, most) : none;
    }
    void waited(clock::duration time) {
        wait.store(time, std::memory_order_relaxed);
        until.store(clock::now() + valid, std::memory_order_relaxed);
    }
};
Lock lock;

// A kernel of some milliseconds and more is not begun with the lock.
bool is_long(const Work& work) { return work.flops > 2e8 || work.bytes > 5e7; }

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

void take_lock(PyThreadState* state, bool pass) {
    const bool learns = pass || lock.wait.load(std::memory_order_relaxed) >= Lock::dear;
    const clock::time_point since = learns ? clock::now() : clock::time_point();
    restore_thread(state);
    if (learns) lock.waited(clock::now() - since);
}

Pass* Pass::current() { return of_thread.depth_ > 0 ? &of_thread : nullptr; }

bool Pass::enter() {
    if (of_thread.depth_++ > 0) return other_code_until(of_thread.frame_);
    of_thread.kernels_ = &fastattn::kernels();
    of_thread.threads_ = num_threads();
    of_thread.frame_ = PyEval_GetFrame();
    of_thread.end_with_thread();
    return false;
}

// A thread that ends within a pass gives back its objects while Python clears the thread's state: later it has no lock.
void Pass::end_with_thread() {
    if (std::exchange(ends_with_thread_, true)) return;
    const py::capsule end(this, [](void* pass) {
        if (pass == &of_thread) of_thread.list_.clear();
    });
    if (PyObject* const state = PyThreadState_GetDict()) PyDict_SetItemString(state, "fastattn pass", end.ptr());
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
    kept_ = fresh_ = 0;
    list_.heal();
    if (list_.calls.empty()) return;
    List list = std::exchange(list_, {});
    const auto checked = list.objects.begin() + static_cast<std::ptrdiff_t>(list.of_calls);
    list_.objects.assign(checked, list.objects.end());
    list.objects.erase(checked, list.objects.end());
    list.compute(threads_);
    list.clear();
    if (list_.is_empty()) std::swap(list, list_);
}

void Pass::make_room(i64 bytes) {
    constexpr i64 most = 512 << 10;
    if (kept_ > most && (fresh_ += bytes) > most) run();
}

void NoPass::enter() {
    run_pass();
    depth_ = std::exchange(of_thread.depth_, 0);
    threads_ = of_thread.threads_;
    kernels_ = of_thread.kernels_;
    frame_ = of_thread.frame_;
}

void NoPass::exit() {
    of_thread.depth_ = depth_;
    of_thread.threads_ = threads_;
    of_thread.kernels_ = kernels_;
    of_thread.frame_ = frame_;
}

void Pass::List::compute(int threads) const {
    std::size_t next = 0;
    const auto run = [&](clock::duration most, bool with_lock) {
        const auto end = clock::now() + most;
        const FlushDenormals flush;  // also covers what a kernel does between its loops
        const Together together(threads);
        do {
            const Call& call = calls[next];
            if (with_lock && is_long(work_of(call.kernel, &args[call.args]))) return;
            run_kernel(call.call, call.kernel, &args[call.args]);
        } while (++next < calls.size() && clock::now() < end);
    };
    if (const clock::duration time = lock.worth_keeping(&of_thread); time > Lock::none) run(time, true);
    while (next < calls.size()) {
        without_lock([&] { run(milliseconds(100), false); }, true);
        if (next < calls.size() && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
}

void Pass::List::heal() {
    for (; !poisoned.empty(); poisoned.pop_back())
        poisoned.back().held.copy(poisoned.back().begin, poisoned.back().held.size());
}

void Pass::List::clear() {
    heal();
    calls.clear();
    args.clear();
    memory.clear();
    of_calls = 0;
    for (PyObject* const object : objects) Py_DECREF(object);
    objects.clear();
}

void Pass::poison(void* result, std::size_t bytes) {
    if (!poisons) return;
    auto* const begin = static_cast<char*>(result);
    for (const Poisoned& each : list_.poisoned)
        if (each.begin <= begin && begin + bytes <= each.begin + each.held.size()) return;
    list_.poisoned.push_back({begin, std::string(begin, bytes)});
    std::memset(begin, 0xFF, bytes);  // NaN
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
    m.def(
        "pass_keeps",
        [](i64 bytes) {
            if (Pass* const pass = Pass::current()) pass->keeps(bytes);
        },
        "So many bytes live on for kernels of this thread's pass alone. Before large results, it computes them.");
    m.def("run_pass", &run_pass, "Compute what was called in this thread's pass, if there is one.");
}

}  // namespace fastattn::bindings
