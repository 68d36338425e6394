#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "denormals.h"
#include "limits.h"

#ifdef _OPENMP
#include <omp.h>
#endif

namespace fastattn {
namespace {

std::atomic<int> budget{1};         // threads that may compute at once, counting only the first caller
std::atomic<int> extra_workers{0};  // lent to running calls, at most budget - 1
[[maybe_unused]] thread_local bool pool_started = false;  // OpenMP has a pool for each thread that calls
std::atomic<const char*> budget_reason{nullptr};          // null: set_num_threads
std::atomic<unsigned> scratch_age{0};                     // scratch of another age is freed

// Scratch belongs to the calling thread and is kept for its next call: fresh memory costs more than most kernels.
class Scratch {
public:
    ~Scratch() { free(); }
    // `floats` for each thread, or for as many threads as there is memory for, at least one.
    float* reserve(i64 floats, int& threads) {
        const i64 wanted = floats * threads;
        if (wanted > size_ || age_ != scratch_age.load(std::memory_order_relaxed)) {
            void* fresh = nullptr;
            if (posix_memalign(&fresh, 64, static_cast<std::size_t>(wanted) * sizeof(float)) == 0) {
                free();
                data_ = static_cast<float*>(fresh);
                size_ = wanted;
            } else if (size_ < floats) {
                throw std::bad_alloc();
            } else {
                threads = static_cast<int>(std::min<i64>(threads, size_ / floats));
            }
        }
        return data_;
    }
    float* reserve(i64 floats) {
        int threads = 1;
        return reserve(floats, threads);
    }
    void free() {
        std::free(data_);
        data_ = nullptr;
        size_ = 0;
        age_ = scratch_age.load(std::memory_order_relaxed);
    }

private:
    float* data_ = nullptr;
    i64 size_ = 0;
    unsigned age_ = 0;
};

thread_local Scratch of_threads, of_call;  // for parallel_for and parallel_phases; for shared_scratch

class Workers {  // a share of the budget, returned at the end of the call
public:
    explicit Workers(int wanted) {
        int lent = extra_workers.load(std::memory_order_relaxed);
        do {
            count_ = std::max(0, std::min(wanted, budget.load(std::memory_order_relaxed) - 1 - lent));
        } while (count_ > 0 && !extra_workers.compare_exchange_weak(lent, lent + count_));
    }
    ~Workers() {
        if (count_ > 0) extra_workers.fetch_sub(count_);
    }
    int count() const { return count_; }

private:
    int count_;
};

// Runs body(thread, threads, scratch) on the calling thread and on up to `wanted` others, if the budget has them.
template <typename Body>
void on_threads(i64 wanted, i64 scratch_floats, const Body& body) {
    const Workers workers(has_openmp() ? static_cast<int>(std::min<i64>(wanted, 1 << 16)) : 0);
    int threads = 1 + workers.count();
    scratch_floats = (scratch_floats + 31) / 32 * 32;
    float* const scratch = scratch_floats ? of_threads.reserve(scratch_floats, threads) : nullptr;
    if (threads == 1) {
        body(0, threads, scratch);
        return;
    }
#ifdef _OPENMP
    pool_started = true;
#pragma omp parallel num_threads(threads)
    {
        const FlushDenormals flush;
        const int thread = omp_get_thread_num();
        body(thread, threads, scratch + thread * scratch_floats);
    }
#endif
}

void pause_briefly() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

void parallel_for(i64 n, i64 grain, LoopBody body, const void* context, i64 scratch_floats) {
    if (n <= 0) return;
    std::atomic<i64> next{0};
    on_threads((n + grain - 1) / grain - 1, scratch_floats, [&](int, int, float* scratch) {
        for (i64 begin; (begin = next.fetch_add(grain, std::memory_order_relaxed)) < n;)
            body(context, begin, std::min(n, begin + grain), scratch);
    });
}

void parallel_phases(i64 phases, i64 pieces, PhaseBody body, const void* context, i64 scratch_floats) {
    struct alignas(64) Claim {
        std::atomic<i64> phase{0};  // the next one in which the piece is free
    };
    Claim claims[most_pieces];
    alignas(64) std::atomic<i64> done{0};
    on_threads(pieces - 1, scratch_floats, [&](int thread, int threads, float* scratch) {
        for (i64 phase = 0; phase < phases; ++phase) {
            // A thread starts with its own pieces and continues with pieces that no thread has started.
            for (i64 i = 0; i < pieces; ++i) {
                const i64 piece = (thread * pieces / threads + i) % pieces;
                i64 expected = phase;
                if (!claims[piece].phase.compare_exchange_strong(expected, phase + 1, std::memory_order_relaxed))
                    continue;
                body(context, phase, piece, scratch);
                done.fetch_add(1, std::memory_order_release);
            }
            // Threads that still compute are not far behind, unless they have lost their processor.
            for (int spins = 0; done.load(std::memory_order_acquire) < (phase + 1) * pieces; ++spins) {
                if (spins < 1 << 10)
                    pause_briefly();
                else
                    sched_yield();
            }
        }
    });
}

float* shared_scratch(i64 floats) { return of_call.reserve(floats); }

void reserve_scratch(i64 floats) { of_threads.reserve(floats); }

void free_scratch() {
    ++scratch_age;
    of_threads.free();
    of_call.free();
}

int num_threads() { return budget; }

void set_num_threads(int n) {
    if (n < 1) throw std::invalid_argument("set_num_threads: n must be at least 1, got " + std::to_string(n));
    budget = n;
    budget_reason = nullptr;
}

std::string num_threads_reason() {
    const char* const reason = budget_reason;
    return reason ? reason : "set_num_threads(" + std::to_string(num_threads()) + ")";
}

void choose_num_threads() {
    for (const char* name : {"FASTATTN_NUM_THREADS", "OMP_NUM_THREADS"}) {
        const char* text = std::getenv(name);
        if (!text || !*text) continue;
        char* end = nullptr;
        errno = 0;
        const long value = std::strtol(text, &end, 10);
        // OMP_NUM_THREADS may be a list, one number for each nesting level
        if (errno == 0 && end != text && value >= 1 && value <= 1 << 16 &&
            (*end == 0 || (*end == ',' && *name == 'O'))) {
            budget = static_cast<int>(value);
            budget_reason = name;
            return;
        }
        if (*name == 'F')
            throw std::invalid_argument(std::string(name) + " must be a whole number of at least 1, got '" + text +
                                        "'");
    }
    const Limit limit = processor_limit();
    budget = limit.threads;
    budget_reason = limit.reason;
}

bool has_openmp() {
#ifdef _OPENMP
    return true;
#else
    return false;
#endif
}

void make_fork_safe() {
    // A child has only the forking thread: it must not wait for a pool that exists only in its parent.
    const auto prepare = [] {
#ifdef _OPENMP
        if (pool_started) omp_pause_resource_all(omp_pause_soft);
        pool_started = false;
#endif
    };
    const auto child = [] { extra_workers = 0; };
    pthread_atfork(prepare, nullptr, child);
}

}  // namespace fastattn
