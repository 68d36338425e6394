#include "memory.h"

#include <pthread.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

namespace fastattn {
namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;
constexpr std::size_t page = std::size_t{1} << 12;

std::atomic<bool> on{false};
std::mutex mutex;
std::vector<Block>& kept = *new std::vector<Block>;  // in the order of their return; never destroyed: arrays outlive us
std::size_t kept_bytes = 0, used_bytes = 0, most_used_bytes = 0;

void drop_oldest(std::size_t until) {
    std::size_t count = 0;
    for (; count < kept.size() && kept_bytes > until; ++count) {
        kept_bytes -= kept[count].bytes;
        std::free(kept[count].data);
    }
    kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(count));
}

Block allocate(std::size_t bytes) {
    const bool large = bytes >= huge_page;
    void* data = nullptr;
    if (posix_memalign(&data, large ? huge_page : page, bytes) != 0) {
        drop_oldest(0);
        if (posix_memalign(&data, large ? huge_page : page, bytes) != 0) throw std::bad_alloc();
    }
#ifdef MADV_HUGEPAGE
    if (large) madvise(data, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return {data, bytes};
}

// Sizes grow in steps of an eighth, so that batches of nearly equal size share their blocks.
std::size_t rounded(std::size_t bytes) {
    std::size_t step = page;
    while (step * 16 <= bytes) step *= 2;
    return (bytes + step - 1) / step * step;
}

}  // namespace

void keep_memory() { on = true; }
bool keeps_memory() { return on.load(std::memory_order_relaxed); }

Block take_memory(std::size_t bytes) {
    if (bytes > std::size_t{PTRDIFF_MAX}) throw std::bad_alloc();  // too many to be rounded
    bytes = rounded(bytes);
    const std::lock_guard<std::mutex> lock(mutex);
    auto best = kept.end();  // the smallest block that is large enough but not wasteful; of equals, the latest returned
    for (auto each = kept.begin(); each != kept.end(); ++each)
        if (each->bytes >= bytes && each->bytes <= bytes + bytes / 4 &&
            (best == kept.end() || each->bytes <= best->bytes))
            best = each;
    Block block;
    if (best != kept.end()) {
        block = *best;
        kept.erase(best);
        kept_bytes -= block.bytes;
    } else {
        const std::size_t used = used_bytes + bytes;
        const std::size_t allowed = std::max(most_used_bytes, used) + most_used_bytes / 8;
        drop_oldest(allowed - used);
        block = allocate(bytes);
    }
    used_bytes += block.bytes;
    most_used_bytes = std::max(most_used_bytes, used_bytes);
    return block;
}

void give_memory(const Block& block) {
    const std::lock_guard<std::mutex> lock(mutex);
    used_bytes -= block.bytes;
    try {
        kept.push_back(block);
        kept_bytes += block.bytes;
    } catch (const std::bad_alloc&) {
        std::free(block.data);
    }
}

Temporary::Temporary(std::size_t bytes)
    : block_([&]() -> Block {
          if (kept_) return take_memory(bytes);
          if (bytes > std::size_t{PTRDIFF_MAX}) throw std::bad_alloc();
          const std::lock_guard<std::mutex> lock(mutex);
          return allocate((bytes + page - 1) / page * page);
      }()) {}

Temporary::~Temporary() { kept_ ? give_memory(block_) : std::free(block_.data); }

void empty_memory() {
    {
        const std::lock_guard<std::mutex> lock(mutex);
        drop_oldest(0);
        most_used_bytes = used_bytes;
    }
#ifdef __GLIBC__
    malloc_trim(0);  // each thread has an arena, which keeps what was freed, also by a thread that has ended
#endif
}

std::size_t kept_memory() {
    const std::lock_guard<std::mutex> lock(mutex);
    return kept_bytes;
}

void make_memory_fork_safe() {
    // A child forked by another thread must not find the mutex locked forever.
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });
}

}  // namespace fastattn
