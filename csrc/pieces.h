// How threads share work. A job is handed out in pieces: a thread claims one with a single compare-and-swap, and waits,
// if at all, for pieces that others have claimed. It never waits for a thread. This file is the protocol alone;
// workers.cpp has the threads.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels.h"

// Places where a test stops a thread (tests/csrc/pieces.cpp).
#ifndef FASTATTN_POINT
#define FASTATTN_POINT(name)
#endif

namespace fastattn {

using PieceBody = void (*)(const void* context, i64 phase, i64 piece, float* scratch);

struct Job {
    PieceBody body;
    const void* context;
    i64 phases;  // no piece of a phase is begun before all pieces of the phase before are done
    i64 pieces;  // of each phase, at most most_pieces_of_job
};

// What a word of a share has room to say.
constexpr i64 most_pieces_of_job = (1 << 28) - 1;
constexpr i64 scratch_unit = 32;  // floats
constexpr i64 most_scratch_units = (1 << 24) - 1;
constexpr int most_helpers = (1 << 12) - 1;

// Where one caller offers its jobs, one after another. Slots are never freed, so that a late thread may look at any.
//
// Every share of the pieces has a word: how many of them nobody has claimed, what scratch a thread needs for one, and
// the last thread that may claim one. A claim takes one off, and succeeds only if the word is what the thread has seen;
// then the job is under way and stays until the piece is done. So a thread reads the job after its claim, and a thread
// that was stopped for however long before its claim does no harm: either its claim fails, or it is a claim on whatever
// job is there now.
class Slot {
public:
    static constexpr int most_shares = 32;

    // By the caller. Threads 1 to `helpers` may help. Thread t begins with share t, and goes on with those of others.
    void open(const Job& job, int shares, i64 scratch_units, int helpers) {
        job_ = job;
        phase_ = 0;
        claim_ = static_cast<std::uint64_t>(helpers) << 52 | static_cast<std::uint64_t>(scratch_units) << 28;
        shares_.store(shares, std::memory_order_relaxed);
        over_.store(false, std::memory_order_relaxed);
        open_phase();
    }

    // Whether all pieces are done. Then the caller may open the next job.
    bool over() const { return over_.load(std::memory_order_acquire); }

    // Whether there is a piece that `thread` may claim.
    bool has_work(int thread) const {
        const int shares = shares_.load(std::memory_order_relaxed);
        for (int i = 0; i < shares; ++i) {
            const std::uint64_t word = share_[i].word.load(std::memory_order_relaxed);
            if (left(word) > 0 && thread <= last_thread(word)) return true;
        }
        return false;
    }

    // Claims a piece, computes it, and opens the next phase if it was the last of this one. `scratch(floats)` is the
    // thread's memory of so many floats, or null if it cannot be had; a thread without it claims nothing.
    enum class Did { nothing, a_piece, a_phase };
    template <typename Scratch>
    Did one_piece(int thread, const Scratch& scratch) {
        const int shares = shares_.load(std::memory_order_relaxed);
        for (int i = 0; i < shares; ++i) {
            const int share = (thread + i) % shares;
            std::uint64_t word = share_[share].word.load(std::memory_order_relaxed);
            while (left(word) > 0 && thread <= last_thread(word)) {
                const i64 floats = scratch_unit * static_cast<i64>(word >> 28 & most_scratch_units);
                float* const memory = floats ? scratch(floats) : nullptr;
                if (floats && !memory) return Did::nothing;
                FASTATTN_POINT(before_claim);
                if (!share_[share].word.compare_exchange_weak(word, word - 1, std::memory_order_acquire,
                                                              std::memory_order_relaxed))
                    continue;
                FASTATTN_POINT(holding);
                job_.body(job_.context, phase_, first_piece(share + 1) - left(word), memory);
                FASTATTN_POINT(computed);
                return finish();
            }
        }
        return Did::nothing;
    }

private:
    static i64 left(std::uint64_t word) { return static_cast<i64>(word & most_pieces_of_job); }
    static int last_thread(std::uint64_t word) { return static_cast<int>(word >> 52); }
    i64 first_piece(int share) const { return job_.pieces * share / shares_.load(std::memory_order_relaxed); }

    void open_phase() {
        const int shares = shares_.load(std::memory_order_relaxed);
        for (int i = 0; i < shares; ++i) {
            FASTATTN_POINT(opening);
            const auto pieces = static_cast<std::uint64_t>(first_piece(i + 1) - first_piece(i));
            share_[i].word.store(claim_ | pieces, std::memory_order_release);
        }
    }

    // The thread that does the last piece of a phase opens the next one. After its piece is counted, another thread
    // touches the job no more.
    Did finish() {
        const i64 pieces = job_.pieces;
        if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 < pieces) return Did::a_piece;
        FASTATTN_POINT(last);
        done_.store(0, std::memory_order_relaxed);
        if (++phase_ < job_.phases) {
            open_phase();
            return Did::a_phase;
        }
        over_.store(true, std::memory_order_release);
        return Did::a_piece;
    }

    struct alignas(64) Share {
        std::atomic<std::uint64_t> word{0};
    };
    Share share_[most_shares];
    alignas(64) std::atomic<i64> done_{0};  // pieces of this phase
    alignas(64) std::atomic<bool> over_{true};
    std::atomic<int> shares_{1};
    // Read by those who hold a piece. Changed by who holds the last one, and by the caller when the job is over.
    Job job_{};
    i64 phase_ = 0;
    std::uint64_t claim_ = 0;
};

}  // namespace fastattn
