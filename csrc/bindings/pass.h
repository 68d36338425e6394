// A pass: the kernels that Python calls in it are checked, and their results allocated, at once. They are computed
// together at its end, in the order of the calls, with the interpreter's lock given up once and the workers woken once.
//
// Until then their results hold nothing. A kernel may take them, and Python may make views of them. What reads them in
// any other way calls run() first; the kernels that cannot be deferred (compute_now) do so themselves.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "../dispatch.h"

namespace fastattn::bindings {

namespace py = pybind11;

// Takes the interpreter's lock again. In a process that is ending it does not return: the thread may not be ended, since
// its stack holds objects that can no longer be given back.
void take_lock(PyThreadState* state);
void count_lock();

// Calls f() while other Python threads run. The lock is given up here alone: whatever touches an object, even to return
// it, needs it. By hand, since pybind11's guard aborts a process that ends in the meantime.
template <typename F>
void without_lock(const F& f) {
    count_lock();
    PyThreadState* const state = PyEval_SaveThread();
    try {
        f();
    } catch (...) {
        take_lock(state);
        throw;
    }
    take_lock(state);
}

class Pass {
public:
    static Pass* current();  // this thread's, or null

    // Python's `with`, on one thread; they may be nested, and the outermost one ends the pass.
    static void enter();
    static void exit(bool failed);  // a pass that an exception ends is not computed

    // Computes all that was added. Raises what the kernels raise, and what a signal handler raises in a long pass.
    void run();

    template <typename Args>
    void add(void (*kernel)(const Args&), const Args& args) {
        static_assert(std::is_trivially_copyable_v<Args>);
        const auto call = [](void (*kernel)(), const void* args) {
            reinterpret_cast<void (*)(const Args&)>(kernel)(*static_cast<const Args*>(args));
        };
        calls_.push_back({call, reinterpret_cast<void (*)()>(kernel), std::make_unique<char[]>(sizeof(Args))});
        std::memcpy(calls_.back().args.get(), &args, sizeof(Args));
    }
    // Until the kernels are computed.
    void keep(py::handle object) { objects_.push_back(py::reinterpret_borrow<py::object>(object)); }
    void keep(void* memory, void (*free)(void*)) { memory_.emplace_back(memory, free); }
    // FASTATTN_POISON: a result holds NaN until it is computed, so that tests see who reads it too early. Memory that
    // the pass has met before is left alone: a kernel that was added may still have to read it.
    void poison(float* result, i64 count);  // which was the last one met
    void meet(const char* begin, const char* end);
    // The table that the pass began with.
    const KernelTable& kernels() const { return *kernels_; }

private:
    void clear();
    struct Call {
        void (*call)(void (*)(), const void*);
        void (*kernel)();
        std::unique_ptr<char[]> args;
    };
    int depth_ = 0;
    const KernelTable* kernels_ = nullptr;
    std::vector<Call> calls_;
    std::vector<py::object> objects_;
    std::vector<std::unique_ptr<void, void (*)(void*)>> memory_;
    std::vector<std::pair<const char*, const char*>> met_;
};

// Computes what Python is about to read.
inline void run_pass() {
    if (Pass* const pass = Pass::current()) pass->run();
}

}  // namespace fastattn::bindings
