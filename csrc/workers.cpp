#include "workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "denormals.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fastattn {
namespace {

constexpr int slots = 64;

// Everything here is never destroyed: workers outlive the end of the process's main function.
struct Board {
    std::atomic<std::uint64_t> taken{0};          // slots that a caller has
    alignas(64) std::atomic<std::uint64_t> open{0};  // slots that may have work
    alignas(64) Slot slot[slots];
};
Board& board = *new Board;

struct Team {
    std::mutex mutex;
    std::condition_variable wake, change;
    std::atomic<int> wanted{0};    // workers that the last caller asked for
    std::atomic<int> sleeping{0};  // workers
    unsigned wakes = 0;            // under the mutex
    bool led = false;              // under the mutex: there is a thread that starts the workers
};
Team& team = *new Team;

std::atomic<unsigned> scratch_age{0};  // scratch of another age is given back
thread_local Scratch of_worker;

void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits a little longer each time. OMP_WAIT_POLICY says how long a thread keeps its processor with nothing to do.
class Patience {
public:
    explicit Patience(int spins, int yields) : spins_(spins), yields_(yields) {}
    bool wait() {  // false when it is time to sleep
        if (++turns_ <= spins_)
            pause_briefly();
        else
            sched_yield();
        return turns_ < spins_ + yields_;
    }
    void reset() { turns_ = 0; }

private:
    int turns_ = 0;
    const int spins_, yields_;
};

int turns(const char* variable, int usual) {
    const char* const text = std::getenv(variable);
    return text ? std::atoi(text) : usual;
}

struct Policy {
    int spins = turns("FA_SPINS", 2000), yields = turns("FA_YIELDS", 100), caller = turns("FA_CALLER", 1000);
    Policy() {
        const char* const policy = std::getenv("OMP_WAIT_POLICY");
        if (policy && strcasecmp(policy, "passive") == 0) spins = yields = 0;
        if (policy && strcasecmp(policy, "active") == 0) spins = 1 << 24;
    }
};
const Policy policy;

void wake_workers(i64 count) {
    if (team.sleeping.load(std::memory_order_seq_cst) == 0) return;
    {
        const std::lock_guard<std::mutex> lock(team.mutex);
        ++team.wakes;
    }
    if (count >= team.sleeping.load(std::memory_order_relaxed))
        team.wake.notify_all();
    else
        for (; count > 0; --count) team.wake.notify_one();
}

bool has_work(int worker) {
    for (std::uint64_t open = board.open.load(std::memory_order_seq_cst); open; open &= open - 1)
        if (board.slot[__builtin_ctzll(open)].has_work(worker)) return true;
    return false;
}

// Takes pieces of one slot until there is none, and goes on to the next slot: callers share the workers.
bool help(int worker, int& last) {
    bool helped = false;
    const std::uint64_t open = board.open.load(std::memory_order_relaxed);
    const std::uint64_t after = last == slots - 1 ? 0 : ~std::uint64_t{0} << (last + 1);
    for (std::uint64_t half : {open & after, open & ~after})
        for (; half; half &= half - 1) {
            Slot& slot = board.slot[last = __builtin_ctzll(half)];
            for (Slot::Did did; (did = slot.one_piece(worker, [](i64 floats) { return of_worker.reserve(floats); })) != Slot::Did::nothing; helped = true)
                if (did == Slot::Did::a_phase) wake_workers(most_helpers);
        }
    return helped;
}

// A worker of a team of `count` helps until another number is wanted.
void work(int worker, int count) {
    const FlushDenormals flush;
    Patience patience(policy.spins, policy.yields);
    int last = 0;
    while (team.wanted.load(std::memory_order_relaxed) == count) {
        if (help(worker, last)) {
            patience.reset();
            continue;
        }
        if (patience.wait()) continue;
        of_worker.free_if_old();
        std::unique_lock<std::mutex> lock(team.mutex);
        team.sleeping.fetch_add(1, std::memory_order_seq_cst);
        const unsigned seen = team.wakes;
        if (!has_work(worker))
            team.wake.wait(lock, [&] { return team.wakes != seen || team.wanted != count; });
        team.sleeping.fetch_sub(1, std::memory_order_relaxed);
        patience.reset();
    }
    of_worker.free();
}

void wait_for_change(int count) {
    std::unique_lock<std::mutex> lock(team.mutex);
    team.change.wait(lock, [&] { return team.wanted != count; });
}

#ifdef _OPENMP
// How many of `count` threads the system grants now. OpenMP ends the process where it cannot start one.
int startable(int count) {
    std::mutex mutex;
    std::unique_lock<std::mutex> all_wait(mutex);
    std::vector<std::thread> threads;
    try {
        threads.reserve(static_cast<std::size_t>(count));
        while (static_cast<int>(threads.size()) < count)
            threads.emplace_back([&] { const std::lock_guard<std::mutex> lock(mutex); });
    } catch (const std::exception&) {
    }
    all_wait.unlock();
    for (std::thread& thread : threads) thread.join();
    return static_cast<int>(threads.size());
}

// One parallel region for as long as `count` workers are wanted. Its threads are OpenMP's, in the places of OMP_PLACES
// and OMP_PROC_BIND: the first one would share the place of the process's first thread, so it only waits.
void run_team(int count) {
    omp_set_dynamic(0);
    const int started = startable(count);
#pragma omp parallel num_threads(started + 1)
    {
        if (const int worker = omp_get_thread_num())
            work(worker, count);
        else
            wait_for_change(count);
    }
}
#else
void run_team(int count) {
    std::vector<std::thread> threads;
    try {
        threads.reserve(static_cast<std::size_t>(count));
        for (int worker = 1; worker <= count; ++worker) threads.emplace_back(work, worker, count);
    } catch (const std::exception&) {  // fewer, then
    }
    wait_for_change(count);
    for (std::thread& thread : threads) thread.join();
}
#endif

// Makes sure that `count` workers are there soon. Nobody waits for them.
void want_workers(int count) {
    if (team.wanted.load(std::memory_order_relaxed) == count) return;
    {
        const std::lock_guard<std::mutex> lock(team.mutex);
        team.wanted = count;
        if (!team.led) {
            sigset_t all, before;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads that the program made
            try {
                std::thread([] {
                    for (;;) run_team(team.wanted);
                }).detach();
                team.led = true;
            } catch (const std::exception&) {  // the caller computes alone until another number is wanted
            }
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
        }
    }
    team.change.notify_all();
    team.wake.notify_all();
}

}  // namespace

float* Scratch::reserve(i64 floats) {
    if (floats > size_ || age_ != scratch_age.load(std::memory_order_relaxed)) {
        void* fresh = nullptr;
        if (posix_memalign(&fresh, 64, static_cast<std::size_t>(floats) * sizeof(float)) == 0) {
            free();
            data_ = static_cast<float*>(fresh);
            size_ = floats;
        } else if (size_ < floats) {
            return nullptr;
        }
    }
    return data_;
}

void Scratch::free() {
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    age_ = scratch_age.load(std::memory_order_relaxed);
}

void Scratch::free_if_old() {
    if (age_ != scratch_age.load(std::memory_order_relaxed)) free();
}

void Scratch::free_all() {
    ++scratch_age;
    wake_workers(most_helpers);  // those who sleep give back theirs
}

Offer::Offer() : slot_(nullptr) {
    std::uint64_t taken = board.taken.load(std::memory_order_relaxed);
    while (~taken) {
        const int free = __builtin_ctzll(~taken);
        if (board.taken.compare_exchange_weak(taken, taken | std::uint64_t{1} << free, std::memory_order_acquire)) {
            slot_ = &board.slot[free];
            return;
        }
    }
}

Offer::~Offer() {
    if (slot_) board.taken.fetch_and(~(std::uint64_t{1} << (slot_ - board.slot)), std::memory_order_release);
}

void Offer::run(const Job& job, i64 units, int helpers, float* scratch) {
    want_workers(helpers);
    const std::uint64_t bit = std::uint64_t{1} << (slot_ - board.slot);
    slot_->open(job, std::min<int>(helpers + 1, Slot::most_shares), units, helpers);
    board.open.fetch_or(bit, std::memory_order_seq_cst);
    wake_workers(std::min<i64>(helpers, job.pieces - 1));
    Patience patience(policy.caller, 1);
    while (!slot_->over()) {
        const Slot::Did did = slot_->one_piece(0, [scratch](i64) { return scratch; });
        if (did == Slot::Did::a_phase) wake_workers(most_helpers);
        if (did == Slot::Did::nothing)
            patience.wait();  // for a piece that somebody has begun
        else
            patience.reset();
    }
    board.open.fetch_and(~bit, std::memory_order_relaxed);
}

void make_workers_fork_safe() {
    // The child has the thread that forked and no other. Whatever the others held is made anew.
    pthread_atfork(nullptr, nullptr, [] {
        new (&board) Board;
        new (&team) Team;
    });
}

}  // namespace fastattn
