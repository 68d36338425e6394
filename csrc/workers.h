// The threads that help callers: one team for the process. They take pieces from every caller's slot in turn.
#pragma once

#include "pieces.h"

namespace fastattn {

// A place to offer jobs for as long as this lives. There may be none: then the caller computes alone.
class Offer {
public:
    explicit Offer(bool pass = false);  // of a pass: the workers that it wakes stay awake while it lives
    ~Offer();
    Offer(const Offer&) = delete;
    Offer& operator=(const Offer&) = delete;
    explicit operator bool() const { return slot_; }

    // Computes a job together with up to `helpers` of the process's `workers`, who take `units` of scratch_unit floats
    // each.
    void run(const Job& job, i64 units, int helpers, int workers, float* scratch);

private:
    std::uint64_t bit() const;
    Slot* slot_;
    const bool pass_;
};

// Memory that its thread keeps for its next call: fresh memory costs more than most kernels.
class Scratch {
public:
    ~Scratch() { free(); }
    float* reserve(i64 floats);  // 64-byte aligned, contents undefined; null if there is no memory
    void free();
    void free_if_old();
    static void free_all();  // every thread's, when it next asks for some or has nothing to do

private:
    float* data_ = nullptr;
    i64 size_ = 0;
    unsigned age_ = 0;
};

// How often a caller waited for pieces that others had begun, and for how long: the time only while somebody profiles.
struct Waits {
    std::uint64_t times;
    i64 ns;
};
extern std::atomic<bool> profiling;
Waits waits_of_thread();
std::uint64_t all_waits();

std::uint64_t workers_woken();
void make_workers_fork_safe();

}  // namespace fastattn
