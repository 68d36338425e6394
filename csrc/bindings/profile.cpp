#include "profile.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "bindings.h"

namespace fastattn::bindings {
namespace {

i64 now() { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); }

thread_local i64 last_end = 0;  // of a profiled call of this thread

struct Counters {
    std::uint64_t locks_given_up, workers_woken, waits;
    static Counters read() { return {fastattn::bindings::locks_given_up(), fastattn::workers_woken(), all_waits()}; }
    Counters operator+(const Counters& other) const {
        return {locks_given_up + other.locks_given_up, workers_woken + other.workers_woken, waits + other.waits};
    }
    Counters operator-(const Counters& other) const {
        return {locks_given_up - other.locks_given_up, workers_woken - other.workers_woken, waits - other.waits};
    }
    py::dict dict() const {
        py::dict dict;
        dict["locks_given_up"] = locks_given_up;
        dict["workers_woken"] = workers_woken;
        dict["waits"] = waits;
        return dict;
    }
};

struct SameCall {  // of one kernel, with the same axes
    std::size_t operator()(const Work& work) const {
        std::size_t hash = std::hash<const void*>()(work.kernel);
        for (const Work::Axis& axis : work.axes)
            hash =
                (hash ^ static_cast<std::size_t>(axis.size) ^ std::hash<const void*>()(axis.name)) * 0x9E3779B97F4A7C15;
        return hash;
    }
    bool operator()(const Work& a, const Work& b) const {
        return a.kernel == b.kernel && std::equal(std::begin(a.axes), std::end(a.axes), std::begin(b.axes));
    }
};

struct Sum {
    i64 calls = 0, ns = 0, least = std::numeric_limits<i64>::max();
    double flops = 0, bytes = 0;
    Waits waits{0, 0};
};
using Sums = std::unordered_map<Work, Sum, SameCall, SameCall>;

std::string shape_of(const Work& work) {
    std::string text;
    for (const Work::Axis& axis : work.axes) {
        if (!axis.name) continue;
        text += (text.empty() ? "" : " ") + std::string(axis.name);
        if (axis.size != Work::flag) text += "=" + std::to_string(axis.size);
    }
    return text;
}

// What all threads call between start and stop. A child of a fork begins an empty one.
class Profile {
public:
    explicit Profile(bool of_thread) : of_thread_(of_thread) {}
    ~Profile() { stop(); }
    void start();
    void stop();
    py::tuple read() const;
    void leave_out(i64 ns, const Counters& counted);
    void add(const Work& work, const Sum& sum, i64 entered);
    void restart();

private:
    i64 tail() const;
    const bool of_thread_;  // the time that the thread which starts it spends before its first call and after its last
    const void* thread_ = nullptr;
    bool runs_ = false;
    i64 begin_ = 0, outside_ = 0, threads_ = 0;
    Sums sums_;
    Counters before_{}, after_{};
};

}  // namespace
}  // namespace fastattn::bindings

template <>
struct pybind11::detail::type_caster<fastattn::bindings::Profile>
    : fastattn::bindings::InitializedCaster<fastattn::bindings::Profile> {};

namespace fastattn::bindings {
namespace {

std::mutex& mutex = *new std::mutex;  // never destroyed: threads outlive the end of main
std::vector<Profile*>& running = *new std::vector<Profile*>;

void Profile::restart() {
    sums_.clear();
    outside_ = threads_ = 0;
    begin_ = now();
    before_ = Counters::read();
}

void Profile::start() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (runs_) throw std::runtime_error("this profile runs already");
    running.push_back(this);
    runs_ = true;
    thread_ = of_thread_ ? &last_end : nullptr;
    restart();
    profiling = true;
}

void Profile::stop() {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!runs_) return;
    outside_ += tail();
    running.erase(std::find(running.begin(), running.end(), this));
    runs_ = false;
    after_ = Counters::read();
    profiling = !running.empty();
}

// Of the time outside of kernels: what is not yet added to the sum.
i64 Profile::tail() const { return runs_ && thread_ == &last_end ? now() - std::max(last_end, begin_) : 0; }

void Profile::leave_out(i64 ns, const Counters& counted) {
    before_ = before_ + counted;
    if (thread_ == &last_end || last_end >= begin_) outside_ -= ns;
}

void Profile::add(const Work& work, const Sum& sum, i64 entered) {
    if (last_end >= begin_) {
        outside_ += entered - last_end;
    } else {
        ++threads_;
        if (thread_ == &last_end) outside_ += entered - begin_;
    }
    Sum& all = sums_[work];
    all.calls += sum.calls;
    all.ns += sum.ns;
    all.least = std::min(all.least, sum.ns);
    all.flops += sum.flops;
    all.bytes += sum.bytes;
    all.waits.times += sum.waits.times;
    all.waits.ns += sum.waits.ns;
}

py::tuple Profile::read() const {
    std::unique_lock<std::mutex> lock(mutex);
    const std::vector<std::pair<Work, Sum>> sums(sums_.begin(), sums_.end());
    const i64 outside = outside_ + tail(), threads = threads_;
    const Counters before = before_, after = runs_ ? Counters::read() : after_;
    lock.unlock();  // Python may call kernels from here on, if only to free what it no longer needs
    py::list rows;
    for (const auto& [work, sum] : sums)
        rows.append(py::make_tuple(work.kernel, shape_of(work), sum.calls, double(sum.ns) * 1e-9,
                                   double(sum.least) * 1e-9, sum.flops, sum.bytes, sum.waits.times,
                                   double(sum.waits.ns) * 1e-9));
    return py::make_tuple(rows, double(outside) * 1e-9, threads, (after - before).dict());
}

}  // namespace

void run_profiled(KernelCall call, AnyKernel kernel, const void* args) {
    const i64 entered = now();
    const Work work = work_of(kernel, args);
    const Waits before = waits_of_thread();
    const i64 begin = now();
    call(kernel, args);
    const i64 end = now();
    const Waits after = waits_of_thread();
    const Sum sum{1,          end - begin, end - begin,
                  work.flops, work.bytes,  {after.times - before.times, after.ns - before.ns}};
    {
        const std::lock_guard<std::mutex> lock(mutex);
        for (Profile* const profile : running) profile->add(work, sum, entered);
    }
    last_end = now();
}

void unprofiled(const std::function<void()>& f) {
    const i64 begin = now();
    const Counters before = Counters::read();
    f();
    const std::lock_guard<std::mutex> lock(mutex);
    for (Profile* const profile : running) profile->leave_out(now() - begin, Counters::read() - before);
}

void bind_profile(py::module_& m) {
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); },
                   [] {
                       for (Profile* const profile : running) profile->restart();
                       mutex.unlock();
                   });
    py::class_<Profile>(m, "Profile")
        .def(py::init<bool>(), py::arg("of_thread"))
        .def("start", &Profile::start)
        .def("stop", &Profile::stop)
        .def("read", &Profile::read);
    m.def("counters", [] { return Counters::read().dict(); }, "What kernels have counted since the process began.");
}

}  // namespace fastattn::bindings
