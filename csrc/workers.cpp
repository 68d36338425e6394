#include "workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <strings.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <limits>
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
    std::atomic<std::uint64_t> taken{0};             // slots that a caller has
    alignas(64) std::atomic<std::uint64_t> open{0};  // slots that may have work
    std::atomic<std::uint64_t> passes{0};            // slots that will have more work soon
    alignas(64) Slot slot[slots];
};
Board& board = *new Board;

struct Team {
    std::mutex mutex;
    std::condition_variable wake;
    std::atomic<int> wanted{0};  // workers that the last caller asked for; those of greater numbers leave
    std::atomic<int> sleeping{0};
    int permits = 0;                    // to wake up; under the mutex
    std::vector<bool> there = {false};  // under the mutex: the workers, from number 1 on
};
Team& team = *new Team;

std::atomic<std::uint64_t> woken{0}, waits{0};
thread_local Waits of_caller;
std::atomic<unsigned> scratch_age{0};  // scratch of another age is given back
thread_local Scratch of_worker;

void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits for so many turns of the processor, and then lets others have it.
class Patience {
public:
    Patience(int spins, int yields) : spins_(spins), yields_(yields) {}
    bool wait() {  // false when the last turn is over
        if (turns_ < spins_)
            pause_briefly();
        else
            sched_yield();
        return turns_ == spins_ + yields_ ? false : ++turns_ < spins_ + yields_;
    }
    void reset() { turns_ = 0; }

private:
    int turns_ = 0;
    const int spins_, yields_;
};

// A caller's time without a piece to do.
class Waiting {
public:
    ~Waiting() { end(); }
    void begin() {
        if (waits_) return;
        waits_ = true;
        ++of_caller.times;
        timed_ = profiling.load(std::memory_order_relaxed);
        if (timed_) since_ = clock::now();
        waits.fetch_add(1, std::memory_order_relaxed);
    }
    void end() {
        if (waits_ && timed_) of_caller.ns += (clock::now() - since_) / std::chrono::nanoseconds(1);
        waits_ = false;
    }

private:
    using clock = std::chrono::steady_clock;
    bool waits_ = false, timed_ = false;
    clock::time_point since_;
};

// How long a worker with nothing to do keeps its processor: 200 to 400 us, since Python needs that long between two
// steps of a decoder, and until the end of a pass; not at all or for ever with OMP_WAIT_POLICY.
struct Policy {
    int spins = 8000, yields = 100;
    bool stays = true;
    Policy() {
        const char* const policy = std::getenv("OMP_WAIT_POLICY");
        if (policy && strcasecmp(policy, "passive") == 0) {
            stays = false;
            spins = yields = 0;
        }
        if (policy && strcasecmp(policy, "active") == 0) spins = std::numeric_limits<int>::max() / 2;
    }
};
const Policy policy;

// Wakes so many of those who sleep. From here on they count as awake, however late they come.
void wake_workers(int count) {
    if (team.sleeping.load(std::memory_order_seq_cst) == 0) return;
    {
        const std::lock_guard<std::mutex> lock(team.mutex);
        count = std::min(count, team.sleeping.load(std::memory_order_relaxed));
        if (count == 0) return;
        team.sleeping.fetch_sub(count, std::memory_order_relaxed);
        team.permits += count;
    }
    woken.fetch_add(1, std::memory_order_relaxed);
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
            for (Slot::Did did; (did = slot.one_piece(worker, [](i64 floats) { return of_worker.reserve(floats); })) !=
                                Slot::Did::nothing;
                 helped = true)
                if (did == Slot::Did::a_phase) wake_workers(most_helpers);
        }
    return helped;
}

// What a worker does. It leaves when fewer are wanted.
void work(int worker) {
    const FlushDenormals flush;
    Patience patience(policy.spins, policy.yields);
    int last = 0;
    for (;;) {
        if (help(worker, last)) {
            patience.reset();
            continue;
        }
        if (patience.wait() || (policy.stays && board.passes.load(std::memory_order_relaxed))) continue;
        of_worker.free_if_old();
        std::unique_lock<std::mutex> lock(team.mutex);
        if (worker > team.wanted) {
            team.there[static_cast<std::size_t>(worker)] = false;
            return;
        }
        team.sleeping.fetch_add(1, std::memory_order_seq_cst);
        if (has_work(worker)) {
            team.sleeping.fetch_sub(1, std::memory_order_relaxed);
        } else {
            team.wake.wait(lock, [] { return team.permits > 0; });
            --team.permits;
        }
        patience.reset();
    }
}

// Puts this thread where OpenMP would put thread `worker` of a team that the process's first thread leads, if
// OMP_PROC_BIND or OMP_PLACES ask for that. Otherwise it stays where the thread that started it may run.
void take_place([[maybe_unused]] int worker, [[maybe_unused]] int workers) {
#if defined(_OPENMP) && defined(__linux__)
    const int places = omp_get_num_places();
    const omp_proc_bind_t bind = omp_get_proc_bind();
    if (bind == omp_proc_bind_false || bind == omp_proc_bind_master || places < 1) return;
    const bool spread = bind == omp_proc_bind_spread && workers < places;
    const int place = spread ? worker * places / (workers + 1) : worker % places;
    std::vector<int> processors(static_cast<std::size_t>(omp_get_place_num_procs(place)));
    omp_get_place_proc_ids(place, processors.data());
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const int processor : processors)
        if (processor < CPU_SETSIZE) CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof set, &set);
#endif
}

// Makes sure that `count` workers are there, or as many of them as the system grants. OpenMP's own threads would not
// do: its runtime ends the process where a thread cannot be started, and its barriers wait for threads.
void want_workers(int count) {
    if (team.wanted.load(std::memory_order_relaxed) == count) return;
    std::unique_lock<std::mutex> lock(team.mutex);
    const bool shrinks = count < team.wanted;
    team.wanted = count;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // signals are for the threads that the program has made
    try {
        team.there.resize(std::max(team.there.size(), static_cast<std::size_t>(count) + 1));
        for (int worker = 1; worker <= count; ++worker) {
            if (team.there[static_cast<std::size_t>(worker)]) continue;
            std::thread([worker, count] {
                take_place(worker, count);
                work(worker);
            }).detach();
            team.there[static_cast<std::size_t>(worker)] = true;
        }
    } catch (const std::exception&) {  // fewer, until another number is wanted
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    lock.unlock();
    if (shrinks) wake_workers(most_helpers);  // those who sleep leave
}

}  // namespace

std::atomic<bool> profiling{false};

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

Offer::Offer(bool pass) : slot_(nullptr), pass_(pass) {
    std::uint64_t taken = board.taken.load(std::memory_order_relaxed);
    while (~taken) {
        const int free = __builtin_ctzll(~taken);
        if (board.taken.compare_exchange_weak(taken, taken | std::uint64_t{1} << free, std::memory_order_acquire)) {
            slot_ = &board.slot[free];
            if (pass) board.passes.fetch_or(bit(), std::memory_order_relaxed);
            return;
        }
    }
}

Offer::~Offer() {
    if (!slot_) return;
    board.passes.fetch_and(~bit(), std::memory_order_relaxed);
    board.taken.fetch_and(~bit(), std::memory_order_release);
}

std::uint64_t Offer::bit() const { return std::uint64_t{1} << (slot_ - board.slot); }

void Offer::run(const Job& job, i64 units, int helpers, int workers, float* scratch) {
    want_workers(workers);
    slot_->open(job, static_cast<int>(std::min<i64>({helpers + 1, job.pieces, Slot::most_shares})), units, helpers);
    board.open.fetch_or(bit(), std::memory_order_seq_cst);
    wake_workers(pass_ ? helpers : static_cast<int>(std::min<i64>(helpers, job.pieces - 1)));  // a pass wakes once
    Patience patience(1000, 0);
    Waiting waiting;
    while (!slot_->over()) {
        const Slot::Did did = slot_->one_piece(0, [scratch](i64) { return scratch; });
        if (did == Slot::Did::a_phase) wake_workers(most_helpers);
        if (did == Slot::Did::nothing) {
            waiting.begin();
            patience.wait();  // for a piece that somebody has begun
        } else {
            waiting.end();
            patience.reset();
        }
    }
    board.open.fetch_and(~bit(), std::memory_order_relaxed);
}

std::uint64_t workers_woken() { return woken; }
std::uint64_t all_waits() { return waits; }
Waits waits_of_thread() { return of_caller; }

void make_workers_fork_safe() {
    // The child has the thread that forked and no other. Whatever the others held is made anew.
    pthread_atfork(nullptr, nullptr, [] {
        new (&board) Board;
        new (&team) Team;
    });
}

}  // namespace fastattn
