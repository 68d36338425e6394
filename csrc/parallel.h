// Threads: one budget for the process, one loop for every kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "kernels.h"

namespace fastattn {

class Offer;

// Calls body(context, begin, end, scratch) for pieces of at most `grain` consecutive items that cover [0, n), on the
// calling thread and on as many others as the budget has free and n / grain can use. A call never waits for another
// one. `scratch` is memory for that thread alone, 64-byte aligned, contents undefined.
// The other threads flush denormals, as the caller should (denormals.h).
// Throws std::bad_alloc, before any work begins, if there is no memory for the scratch.
using LoopBody = void (*)(const void* context, i64 begin, i64 end, float* scratch);
void parallel_for(i64 n, i64 grain, LoopBody body, const void* context, i64 scratch_floats);

// Calls body(context, phase, piece, scratch) for the pieces [0, pieces) of phase 0, then of phase 1, and so on. No
// piece begins before all pieces of the previous phase are done. The threads stay together for all phases, and the same
// thread does a piece in every phase unless it is late: its caches hold the piece's data.
using PhaseBody = void (*)(const void* context, i64 phase, i64 piece, float* scratch);
constexpr i64 most_pieces = 128;
void parallel_phases(i64 phases, i64 pieces, PhaseBody body, const void* context, i64 scratch_floats);

// The same for lambdas, body(begin, end, scratch) and body(phase, piece, scratch).
// Static: objects of two instruction sets must not share them.
template <typename Body>
static inline void parallel_for(i64 n, i64 grain, const Body& body, i64 scratch_floats = 0) {
    const LoopBody call = [](const void* body, i64 begin, i64 end, float* scratch) {
        (*static_cast<const Body*>(body))(begin, end, scratch);
    };
    parallel_for(n, grain, call, &body, scratch_floats);
}

template <typename Body>
static inline void parallel_phases(i64 phases, i64 pieces, const Body& body, i64 scratch_floats = 0) {
    const PhaseBody call = [](const void* body, i64 phase, i64 piece, float* scratch) {
        (*static_cast<const Body*>(body))(phase, piece, scratch);
    };
    parallel_phases(phases, pieces, call, &body, scratch_floats);
}

// While one lives on a thread, the jobs of the thread are those of one pass: they have the budget `threads`, and the
// workers that the first one wakes stay awake.
class Together {
public:
    explicit Together(int threads);
    ~Together();
    Together(const Together&) = delete;
    Together& operator=(const Together&) = delete;

private:
    std::unique_ptr<Offer> offer_;
};

// Memory for one call of a kernel, shared by its threads and valid until the calling thread asks again; 64-byte
// aligned. Throws std::bad_alloc.
float* shared_scratch(i64 floats);

// The same for a recurrent layer, whose products ask for shared_scratch. For large layers there is Temporary
// (memory.h).
constexpr std::size_t most_layer_scratch = std::size_t{1} << 20;  // floats
float* layer_scratch(i64 floats);

// Reserves scratch for one thread, so that a later parallel_for that asks for less does not throw: for a kernel that
// would otherwise stop halfway through its sums. `floats` is a multiple of 32. Throws std::bad_alloc.
void reserve_scratch(i64 floats);
void free_scratch();  // this thread's at once, another thread's when it next asks for some

int num_threads();
void set_num_threads(int n);       // std::invalid_argument when n < 1
std::string num_threads_reason();  // what decided the number
void choose_num_threads();         // FASTATTN_NUM_THREADS, OMP_NUM_THREADS, or what the machine grants
std::uint64_t workers_woken();     // how often a caller woke sleeping workers
bool has_openmp();
void make_fork_safe();

}  // namespace fastattn
