// A pass: the kernels that Python calls in it are checked, and their results allocated, at once. They are computed
// together at its end, in the order of the calls, with the interpreter's lock given up once and the workers woken once.
//
// Until then their results hold nothing. A kernel may take them, and Python may make views of them. What reads them in
// any other way calls run() first; the kernels that cannot be deferred (compute_now) do so themselves.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "profile.h"

namespace fastattn::bindings {

namespace py = pybind11;

// Takes the interpreter's lock again, as restore_thread does. `pass`: notes how long that took.
void take_lock(PyThreadState* state, bool pass = false);
void count_lock();
std::uint64_t locks_given_up();

// Calls f() while other Python threads run. The lock is given up here alone: whatever touches an object, even to return
// it, needs it. By hand, since pybind11's guard aborts a process that ends in the meantime.
template <typename F>
void without_lock(const F& f, bool pass = false) {
    count_lock();
    PyThreadState* const state = PyEval_SaveThread();
    try {
        f();
    } catch (...) {
        take_lock(state);
        throw;
    }
    take_lock(state, pass);
}

class Pass {
public:
    ~Pass() { list_.objects.clear(); }  // without the interpreter's lock; see end_with_thread
    static Pass* current();             // this thread's, or null

    // Python's `with`, on one thread; they may be nested, and the outermost one ends the pass. Code that is not ours
    // between two of them, such as a signal handler, reads the results of the inner one: it is apart, which means that
    // it is computed at its own end.
    static bool enter();                        // whether it is apart
    static void exit(bool failed, bool apart);  // a pass that an exception ends is not computed

    // Computes all that was added. Raises what the kernels raise, and what a signal handler raises in a long pass.
    void run();

    template <typename Args>
    void add(void (*kernel)(const Args&), const Args& args) {
        add(&call_kernel<Args>, reinterpret_cast<AnyKernel>(kernel), args);
    }
    template <typename Args>
    void add(KernelCall call, AnyKernel kernel, const Args& args) {
        static_assert(std::is_trivially_copyable_v<Args>);
        const std::size_t begin = list_.args.size();
        list_.args.resize(begin + (sizeof(Args) + sizeof(Word) - 1) / sizeof(Word));
        std::memcpy(&list_.args[begin], &args, sizeof(Args));
        list_.calls.push_back({call, kernel, begin});
        list_.of_calls = list_.objects.size();
    }
    // Until the kernels are computed.
    void keep(py::handle object) {
        Py_INCREF(object.ptr());  // py::object's assertion would cost as much as the rest of a check
        list_.objects.push_back(object.ptr());
    }
    void keep(void* memory, void (*free)(void*)) { list_.memory.emplace_back(memory, free); }
    // FASTATTN_POISON: a result holds NaN until it is computed, so that tests see who reads it too early. What it held
    // comes back before the kernels begin: some add to it, or are to read it before it changes.
    void poison(void* result, std::size_t bytes);
    // Computes all that was added if more than 512 kB of new results would lie beside more than 512 kB that the pass
    // alone keeps.
    void make_room(i64 bytes);
    void keeps(i64 bytes) { kept_ += bytes; }
    // The table and the budget that the pass began with.
    const KernelTable& kernels() const { return *kernels_; }
    int threads() const { return threads_; }

private:
    struct alignas(std::max_align_t) Word {
        char bytes[alignof(std::max_align_t)];
    };
    struct Call {
        KernelCall call;
        AnyKernel kernel;
        std::size_t args;  // where they begin
    };
    struct Poisoned {
        char* begin;
        std::string held;
    };
    struct List {
        std::vector<Call> calls;
        std::vector<Word> args;
        std::vector<PyObject*> objects;
        std::size_t of_calls = 0;  // the others belong to a call that is still being checked
        std::vector<std::unique_ptr<void, void (*)(void*)>> memory;
        std::vector<Poisoned> poisoned;
        List() = default;
        List(List&&) = default;
        List& operator=(List&&) = default;  // to an empty one
        ~List() { clear(); }
        void compute(int threads) const;
        void heal();
        void clear();
        bool is_empty() const { return calls.empty() && objects.empty() && memory.empty(); }
    };

    friend class NoPass;

    void end_with_thread();

    int depth_ = 0, threads_ = 1;
    const KernelTable* kernels_ = nullptr;
    const void* frame_ = nullptr;  // of the outermost `with`
    List list_;
    i64 kept_ = 0, fresh_ = 0;  // bytes that the pass alone keeps, and of results since
    bool ends_with_thread_ = false;
};

// Python's `with` around code that knows nothing of passes: in it, kernels are computed at once.
class NoPass {
public:
    void enter();
    void exit();

private:
    int depth_ = 0, threads_ = 1;
    const KernelTable* kernels_ = nullptr;
    const void* frame_ = nullptr;
};

// Computes what Python is about to read.
inline void run_pass() {
    if (Pass* const pass = Pass::current()) pass->run();
}

}  // namespace fastattn::bindings
