// Large blocks of memory that are reused. A training step needs the same gigabytes every time, and fresh memory from
// the system costs more than many kernels: each page is cleared when it is first touched.
#pragma once

#include <cstddef>

namespace fastattn {

struct Block {
    void* data;
    std::size_t bytes;
};

// Off until turned on: a process that only runs inference keeps nothing.
void keep_memory();
bool keeps_memory();

Block take_memory(std::size_t bytes);  // of at least this size, 64-byte aligned, contents undefined; std::bad_alloc
void give_memory(const Block& block);  // kept; used and kept memory together hardly exceed the peak of used memory

// Memory for one call of a kernel, 64-byte aligned, contents undefined. Throws std::bad_alloc.
class Temporary {
public:
    explicit Temporary(std::size_t bytes);
    ~Temporary();
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
    void* data() const { return block_.data; }

private:
    const bool kept_ = keeps_memory();
    const Block block_;
};

void empty_memory();        // returns to the system what is kept, and with glibc what malloc keeps
std::size_t kept_memory();  // bytes
void make_memory_fork_safe();

}  // namespace fastattn
