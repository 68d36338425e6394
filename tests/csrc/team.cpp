// The workers of a process: callers from several threads, sleep and waking, changing numbers of threads, scratch,
// forks. Prints one line a check that failed, and exits with 1 if there was one.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

#include "../../csrc/parallel.h"
#include "../../csrc/workers.h"
#include "check.h"

#ifndef PATIENCE
#define PATIENCE 60  // seconds that a worker may take to come
#endif

namespace {

using namespace fastattn;

std::atomic<int> computing{0}, most_computing{0};

// Counts itself among the threads that compute, and takes a while.
void compute_a_while() {
    const int now = ++computing;
    int most = most_computing;
    while (most < now && !most_computing.compare_exchange_weak(most, now)) {
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    --computing;
}

void check_loop(i64 n, i64 grain, i64 scratch_floats) {
    std::vector<int> times(static_cast<std::size_t>(n));
    parallel_for(
        n, grain,
        [&](i64 begin, i64 end, float* scratch) {
            for (i64 i = 0; i < scratch_floats; ++i) scratch[i] = static_cast<float>(begin);
            for (i64 i = begin; i < end; ++i) ++times[static_cast<std::size_t>(i)];
            for (i64 i = 0; i < scratch_floats; ++i)
                CHECK(scratch[i] == static_cast<float>(begin), "two threads have the same scratch");
        },
        scratch_floats);
    for (const int count : times) CHECK(count == 1, "an item was computed %d times", count);
}

// Each phase adds up what all pieces of the phase before have written.
void check_phases(i64 phases, i64 pieces) {
    std::vector<i64> values(static_cast<std::size_t>(2 * pieces), 1);
    parallel_phases(phases, pieces, [&](i64 phase, i64 piece, float*) {
        i64 sum = 0;
        for (i64 i = 0; i < pieces; ++i) sum += values[static_cast<std::size_t>(phase % 2 * pieces + i)];
        values[static_cast<std::size_t>((phase + 1) % 2 * pieces + piece)] = sum / pieces + 1;
    });
    for (i64 i = 0; i < pieces; ++i) {
        const i64 value = values[static_cast<std::size_t>(phases % 2 * pieces + i)];
        CHECK(value == phases + 1, "%lld phases gave %lld", static_cast<long long>(phases),
              static_cast<long long>(value));
    }
}

void call(int rounds) {
    for (int k = 0; k < rounds; ++k) {
        check_loop(1 + 37 * (k % 5), 1 + k % 3, k % 4 * 50);
        check_phases(1 + k % 9, 1 + k % 7);
        if (k % 16 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));  // the workers fall asleep
        if (k % 64 == 0) free_scratch();
    }
}

void check_budget(int threads, int callers) {
    set_num_threads(threads);
    parallel_for(64, 1, [](i64, i64, float*) { compute_a_while(); });  // those of a larger team are gone
    most_computing = 0;
    std::vector<std::thread> all;
    for (int i = 0; i < callers; ++i)
        all.emplace_back([] {
            for (int k = 0; k < 5; ++k) parallel_for(40, 1, [](i64, i64, float*) { compute_a_while(); });
        });
    for (std::thread& thread : all) thread.join();
    CHECK(most_computing <= threads - 1 + callers, "%d threads computed for %d callers with a budget of %d",
          most_computing.load(), callers, threads);
}

// All of `threads` compute at the same time, however long it takes them to come.
void check_help(int threads) {
    set_num_threads(threads);
    std::atomic<int> there{0};
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(PATIENCE);
    parallel_for(threads, 1, [&](i64, i64, float*) {
        for (++there; there < threads && std::chrono::steady_clock::now() < end;)
            std::this_thread::sleep_for(std::chrono::microseconds(100));
    });
    CHECK(there == threads && std::chrono::steady_clock::now() < end, "%d of %d threads came", there.load(), threads);
}

// A caller counts its wait for a piece that a worker has begun, and how long it was.
void check_waits() {
    set_num_threads(2);
    profiling = true;
    const std::uint64_t all = all_waits();
    const Waits before = waits_of_thread();
    const auto caller = std::this_thread::get_id();
    std::atomic<int> there{0};
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto until = [&](const auto& happens) {
        while (!happens() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
    };
    parallel_for(2, 1, [&](i64, i64, float*) {
        ++there;
        until([&] { return there == 2; });
        if (std::this_thread::get_id() == caller) return;
        until([&] { return all_waits() > all; });
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    });
    profiling = false;
    const Waits after = waits_of_thread();
    CHECK(all_waits() == all + 1 && after.times == before.times + 1, "one wait was counted as %lld",
          static_cast<long long>(after.times - before.times));
    CHECK(after.ns - before.ns >= 2000000, "a wait of 2 ms took %lld ns", static_cast<long long>(after.ns - before.ns));
}

// Forks, while another thread computes if `busy`. The child has workers of its own, which leave that thread's job
// alone.
void check_fork(bool busy) {
    static std::atomic<int> pieces_of_the_parent{0};
    const pid_t parent = getpid();
    std::atomic<bool> stop{false};
    std::thread other;
    if (busy) {
        other = std::thread([&] {
            while (!stop)
                parallel_for(100, 1, [&](i64, i64, float*) {
                    if (getpid() != parent) ++pieces_of_the_parent;
                    std::this_thread::sleep_for(std::chrono::microseconds(200));
                });
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const pid_t child = fork();
    if (child == 0) {
        failures = 0;
        most_computing = 0;
        computing = 0;
        call(20);
        check_help(3);
        CHECK(pieces_of_the_parent == 0, "%d pieces of the parent", pieces_of_the_parent.load());
        _exit(failures > 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ended with %d", status);
    stop = true;
    if (busy) other.join();
}

}  // namespace

int main() {
    make_fork_safe();
    for (const int threads : {2, 3, 1, 8, 2}) {
        set_num_threads(threads);
        std::vector<std::thread> callers;
        for (int i = 0; i < 3; ++i) callers.emplace_back(call, 100);
        for (std::thread& caller : callers) caller.join();
    }
    check_budget(1, 3);
    check_budget(2, 3);
    check_budget(4, 2);
    check_budget(3, 70);  // more callers than can be helped at once

    for (const int threads : {2, 5, 3}) check_help(threads);
    check_waits();

#ifndef __SANITIZE_THREAD__
    // More pieces than a job can have: they grow.
    i64 pieces = 0, items = 0;
    set_num_threads(1);
    parallel_for(i64{1} << 38, 512, [&](i64 begin, i64 end, float*) { ++pieces, items += end - begin; });
    CHECK(items == i64{1} << 38, "%lld items", static_cast<long long>(items));
    CHECK(pieces < i64{1} << 28, "%lld pieces", static_cast<long long>(pieces));
    set_num_threads(3);
    for (int i = 0; i < 10 && failures == 0; ++i) check_fork(i % 2 == 1);
#endif
    std::printf("%d failures\n", failures.load());
    return failures > 0;
}
