// The protocol of pieces.h under a scripted scheduler: a helper is stopped at every point of it, for every time that it
// comes by. Prints one line a check that failed, and exits with 1 if there was one.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace {

// Stops the helper when it comes by `point` for the `turn`th time, until release().
class Script {
public:
    void set(const char* point, int turn) {
        const std::lock_guard<std::mutex> lock(mutex_);
        point_ = point, turn_ = turn, stopped_ = released_ = false;
    }
    void pass(const char* point) {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!point_ || std::strcmp(point, point_) != 0 || turn_-- != 0) return;
        stopped_ = true;
        changed_.notify_all();
        changed_.wait(lock, [&] { return released_; });
    }
    bool wait_until_stopped(const std::function<bool()>& given_up) {
        std::unique_lock<std::mutex> lock(mutex_);
        while (!stopped_ && !given_up()) changed_.wait_for(lock, std::chrono::milliseconds(1));
        return stopped_;
    }
    void release() {
        const std::lock_guard<std::mutex> lock(mutex_);
        released_ = true, point_ = nullptr;
        changed_.notify_all();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    const char* point_ = nullptr;
    int turn_ = 0;
    bool stopped_ = false, released_ = false;
};

Script script;
thread_local bool helps = false;  // this thread is the one that the script stops
#define FASTATTN_POINT(name) \
    if (helps) script.pass(#name)

}  // namespace

#include "../../csrc/pieces.h"
#include "check.h"

namespace {

using namespace fastattn;

// Counts how often each piece of each phase was computed, from the counts of the phase before. These are no atomics:
// ThreadSanitizer sees whether the protocol orders what one thread writes and another one reads.
struct Work {
    Work(i64 phases, i64 pieces) : phases(phases), pieces(pieces), times(static_cast<std::size_t>(phases * pieces)) {}
    i64 phases, pieces;
    std::vector<int> times;
    std::atomic<bool> early{false};

    int& at(i64 phase, i64 piece) { return times[static_cast<std::size_t>(phase * pieces + piece)]; }
    Job job() {
        return {[](const void* context, i64 phase, i64 piece, float*) {
                    Work& work = *static_cast<Work*>(const_cast<void*>(context));
                    for (i64 other = 0; phase > 0 && other < work.pieces; ++other)
                        if (work.at(phase - 1, other) != 1) work.early.store(true, std::memory_order_relaxed);
                    ++work.at(phase, piece);
                },
                this, phases, pieces};
    }
    void check(const char* what) const {
        CHECK(!early, "%s: a phase began too early", what);
        for (std::size_t i = 0; i < times.size(); ++i)
            CHECK(times[i] == 1, "%s: piece %zu was computed %d times", what, i, times[i]);
    }
};

float* no_scratch(i64) { return nullptr; }

// Under a real-time policy, a thread that does not yield keeps its processor from those that it waits for.
void take_turn(Slot& slot, int thread) {
    if (slot.one_piece(thread, no_scratch) == Slot::Did::nothing) std::this_thread::yield();
}

// As many turns as it takes, or `turns`: whether the job is over.
bool compute(Slot& slot, int turns = 1 << 30) {
    while (!slot.over() && turns-- > 0) take_turn(slot, 0);
    return slot.over();
}

// A helper that is stopped at `point` when it comes by for the `turn`th time. Then the caller goes on, alone. Returns
// false when the helper does not come by so often.
bool stop_at(const char* point, int turn, i64 phases, i64 pieces) {
    Slot slot;
    Work first{phases, pieces};
    std::atomic<bool> stop{false};
    script.set(point, turn);
    slot.open(first.job(), 2, 0, 1);
    std::thread helper([&] {
        helps = true;
        while (!stop.load(std::memory_order_relaxed)) take_turn(slot, 1);
    });
    // The helper does all the work until it stops.
    const bool stopped = script.wait_until_stopped([&] { return slot.over(); });
    if (stopped) {
        const bool free = std::strcmp(point, "before_claim") == 0;
        CHECK(compute(slot, free ? 1 << 20 : 1000) == free, "stopped at %s, turn %d: the caller %s", point, turn,
              free ? "waits for a thread without a piece" : "did not wait for a piece that has begun");
        if (free) {
            // The late thread's claim is one on whatever job is there when it goes on.
            first.check("before the late claim");
            Work second{phases + 1, pieces + 3};
            slot.open(second.job(), 2, 0, 1);
            script.release();
            compute(slot);
            stop = true;
            helper.join();
            second.check("after the late claim");
            return true;
        }
    }
    script.release();
    compute(slot);
    stop = true;
    helper.join();
    first.check(point);
    return stopped;
}

// Many jobs, one after another, with helpers that come and go.
void stress(int helpers, int jobs) {
    Slot slot;
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (int thread = 1; thread <= helpers; ++thread)
        threads.emplace_back([&, thread] {
            while (!stop.load(std::memory_order_relaxed)) take_turn(slot, thread);
        });
    for (int k = 0; k < jobs; ++k) {
        Work work{1 + k % 3, 1 + k * 7 % 11};
        slot.open(work.job(), 1 + k % (helpers + 1), 0, helpers);
        compute(slot);
        work.check("stress");
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
}

void who_may_help() {
    Slot slot;
    Work work{1, 4};
    slot.open(work.job(), 2, 0, 1);
    CHECK(slot.has_work(1), "thread 1 may help");
    CHECK(!slot.has_work(2), "thread 2 is beyond the budget");
    CHECK(slot.one_piece(2, no_scratch) == Slot::Did::nothing, "thread 2 is beyond the budget");
    compute(slot);
    work.check("alone");
    CHECK(!slot.has_work(1), "all is done");

    Work with_scratch{1, 4};  // its pieces need 96 floats
    slot.open(with_scratch.job(), 2, 3, 1);
    i64 asked = 0;
    CHECK(slot.one_piece(1, [&](i64 floats) { return asked = floats, static_cast<float*>(nullptr); }) ==
              Slot::Did::nothing,
          "a thread without scratch takes a piece");
    CHECK(asked == 96, "asked for %lld floats", static_cast<long long>(asked));
    float memory[96];
    while (slot.one_piece(1, [&](i64) { return memory; }) != Slot::Did::nothing) {
    }
    with_scratch.check("with scratch");
}

}  // namespace

int main() {
    who_may_help();
    int stops = 0;
    for (const char* point : {"before_claim", "holding", "computed", "last", "opening"})
        for (const auto& [phases, pieces] : {std::pair<i64, i64>{1, 2}, {1, 5}, {3, 2}, {4, 3}}) {
            int turn = 0;
            while (stop_at(point, turn, phases, pieces)) ++turn;
            stops += turn;
            // A job of one phase opens none after its first.
            CHECK(turn > 0 || (phases == 1 && std::strcmp(point, "opening") == 0), "never came by %s", point);
        }
    stress(1, 4000);
    stress(3, 4000);
    std::printf("%d stops, %d failures\n", stops, failures.load());
    return failures > 0;
}
