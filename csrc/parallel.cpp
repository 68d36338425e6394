#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>
#include <stdexcept>

#include "limits.h"
#include "workers.h"

namespace fastattn {
namespace {

std::atomic<int> budget{1};                       // threads that compute at once, counting only the first caller
std::atomic<const char*> budget_reason{nullptr};  // null: set_num_threads

thread_local Offer* together = nullptr;  // of the pass that this thread computes
thread_local int budget_together = 1;
// For parallel_for and parallel_phases; for shared_scratch; for layer_scratch.
thread_local Scratch of_caller, of_call, of_layer;

// Some memory even for no floats: null means that there is none left.
float* reserved(Scratch& of, i64 floats) {
    float* const scratch = of.reserve(std::max<i64>(floats, 32));
    if (!scratch) throw std::bad_alloc();
    return scratch;
}

void compute(const Job& job, i64 scratch_floats) {
    const i64 units = (scratch_floats + scratch_unit - 1) / scratch_unit;
    float* const scratch = units ? reserved(of_caller, units * scratch_unit) : nullptr;
    const int now = budget.load(std::memory_order_relaxed);
    const int helpers = std::min((together ? budget_together : now) - 1, most_helpers);
    if (helpers > 0 && job.pieces > 1 && units <= most_scratch_units) {
        const int workers = std::min(now - 1, most_helpers);
        if (together && *together) return together->run(job, units, helpers, workers, scratch);
        if (Offer offer; offer) return offer.run(job, units, helpers, workers, scratch);
    }
    for (i64 phase = 0; phase < job.phases; ++phase)
        for (i64 piece = 0; piece < job.pieces; ++piece) job.body(job.context, phase, piece, scratch);
}

}  // namespace

void parallel_for(i64 n, i64 grain, LoopBody body, const void* context, i64 scratch_floats) {
    if (n <= 0) return;
    struct Loop {
        LoopBody body;
        const void* context;
        i64 n, grain;
    } const loop{body, context, n, std::max(grain, n / most_pieces_of_job + 1)};
    const PieceBody piece_of_loop = [](const void* context, i64, i64 piece, float* scratch) {
        const Loop& loop = *static_cast<const Loop*>(context);
        const i64 begin = piece * loop.grain;
        loop.body(loop.context, begin, std::min(loop.n, begin + loop.grain), scratch);
    };
    compute({piece_of_loop, &loop, 1, (n + loop.grain - 1) / loop.grain}, scratch_floats);
}

void parallel_phases(i64 phases, i64 pieces, PhaseBody body, const void* context, i64 scratch_floats) {
    compute({body, context, phases, pieces}, scratch_floats);
}

Together::Together(int threads) : offer_(std::make_unique<Offer>(true)) {
    together = offer_.get();
    budget_together = threads;
}

Together::~Together() { together = nullptr; }

float* shared_scratch(i64 floats) { return reserved(of_call, floats); }

float* layer_scratch(i64 floats) { return reserved(of_layer, floats); }

void reserve_scratch(i64 floats) { reserved(of_caller, floats); }

void free_scratch() {
    Scratch::free_all();
    of_caller.free();
    of_call.free();
    of_layer.free();
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

void make_fork_safe() { make_workers_fork_safe(); }

}  // namespace fastattn
