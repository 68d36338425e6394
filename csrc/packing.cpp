#include "packing.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "kernels/panel.h"
#include "parallel.h"

#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23  // older headers; an older kernel refuses it
#endif

namespace fastattn {
namespace {

constexpr std::size_t huge_page = 1 << 21, page = 1 << 12;
constexpr std::size_t worth_keeping = 1 << 18;

// f(at, first, columns, scratch) for every panel, by several threads: it starts at the float `at` and holds `columns`
// rows of W, starting with row `first`.
template <typename F>
void for_panels(const PackedMatrix& w, const F& f, i64 scratch_floats = 0) {
    if (w.k() == 0) return;
    const i64 of_group = w.n() / w.groups();
    const auto body = [&](i64 begin, i64 end, float* scratch) {
        for (i64 p = begin; p < end; ++p) {
            const i64 unit = p / w.groups() * panel_width;
            f(p * panel_width * w.k(), p % w.groups() * of_group + unit, std::min(of_group - unit, panel_width),
              scratch);
        }
    };
    parallel_for(w.groups() * w.panels_of_group(), 4, body, scratch_floats);
}

// Pages of the system's for a weight that stays: after it is freed, malloc would keep the memory between its other
// blocks. Made at once, which costs less than one by one. Null if there are none.
void* map_pages(std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
    return nullptr;  // malloc's blocks have guards around them
#endif
    const std::size_t align = bytes >= huge_page ? huge_page : 0, whole = (bytes + page - 1) / page * page;
    void* const got = mmap(nullptr, whole + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) return nullptr;
    char* const first = static_cast<char*>(got);
    const std::size_t before = align ? (align - reinterpret_cast<std::uintptr_t>(first) % align) % align : 0;
    if (before) munmap(first, before);
    if (align > before) munmap(first + before + whole, align - before);
    char* const pages = first + before;
#ifdef MADV_HUGEPAGE
    if (align) madvise(pages, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
#ifdef MADV_POPULATE_WRITE
    madvise(pages, whole, MADV_POPULATE_WRITE);
#endif
    return pages;
}

bool read_bytes(int file, char* to, i64 bytes, i64 offset) {
    while (bytes > 0) {
        const ssize_t count = pread(file, to, static_cast<std::size_t>(bytes), static_cast<off_t>(offset));
        if (count == 0 || (count < 0 && errno != EINTR)) return false;
        if (count < 0) continue;
        to += count, bytes -= count, offset += count;
    }
    return true;
}

// Reads the rows [first, first + count) of the matrix that the pieces are.
bool read_rows(const std::vector<StoredRows>& pieces, float* to, i64 first, i64 count, i64 k) {
    const i64 row = k * static_cast<i64>(sizeof(float));
    for (const StoredRows& piece : pieces) {
        const i64 here = std::min(count, piece.rows - first);
        if (here > 0) {
            if (!read_bytes(piece.file, reinterpret_cast<char*>(to), here * row, piece.offset + first * row))
                return false;
            to += here * k, count -= here, first += here;
        }
        if (count == 0) return true;
        first -= piece.rows;
    }
    return false;
}

bool all_finite(const float* values, i64 count) {
    typedef int i4 __attribute__((vector_size(16)));
    constexpr int exponent = 0x7f800000;
    const i4 mask = {exponent, exponent, exponent, exponent};
    i4 found = {};
    i64 i = 0;
    for (; i + 4 <= count; i += 4) {
        i4 bits;
        __builtin_memcpy(&bits, values + i, sizeof bits);
        found |= (bits & mask) == mask;
    }
    for (; i < count; ++i) {
        int bits;
        __builtin_memcpy(&bits, values + i, sizeof bits);
        found[0] |= (bits & exponent) == exponent;
    }
    return (found[0] | found[1] | found[2] | found[3]) == 0;
}

}  // namespace

void PackedMatrix::Free::operator()(float* p) const {
    if (block.data)
        give_memory(block);
    else if (block.bytes)
        munmap(p, block.bytes);
    else
        std::free(p);
}

std::unique_ptr<float[], PackedMatrix::Free> PackedMatrix::allocate(i64 floats) {
    const std::size_t bytes = static_cast<std::size_t>(floats > 0 ? floats : 1) * sizeof(float);
    const bool large = bytes >= huge_page;
    if (bytes >= worth_keeping && keeps_memory()) {
        const Block block = take_memory(bytes);
        return {static_cast<float*>(block.data), Free{block}};
    }
    void* memory = nullptr;
    if (posix_memalign(&memory, large ? huge_page : 64, bytes) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    // A weight is read from end to end on every call: fewer pages, fewer misses. Only whole huge pages are advised, so
    // this costs no memory.
    if (large) madvise(memory, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return {static_cast<float*>(memory), Free{}};
}

PackedMatrix::PackedMatrix(i64 n, i64 k, i64 groups) : n_(n), k_(k), groups_(groups), panels_(allocate(floats())) {}

PackedMatrix::PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw, i64 groups) : PackedMatrix(n, k, groups) {
    for_panels(*this, [&](i64 at, i64 first, i64 columns, float*) {
        pack_panel(panels_.get() + at, weight + first * ldw, ldw, columns, k);
    });
}

std::unique_ptr<PackedMatrix> PackedMatrix::read(const std::vector<StoredRows>& pieces, i64 k, i64 groups) {
    i64 n = 0;
    for (const StoredRows& piece : pieces) n += piece.rows;
    std::unique_ptr<PackedMatrix> result(new PackedMatrix(0, k, groups));
    result->n_ = n;
    const std::size_t bytes = static_cast<std::size_t>(result->floats()) * sizeof(float);
    if (void* const pages = bytes >= worth_keeping ? map_pages(bytes) : nullptr)
        result->panels_ = {static_cast<float*>(pages), Free{Block{nullptr, bytes}}};
    else
        result->panels_ = allocate(result->floats());
    std::atomic<bool> good{true};
    const auto pack = [&](i64 at, i64 first, i64 columns, float* rows) {
        if (!good.load(std::memory_order_relaxed)) return;
        if (read_rows(pieces, rows, first, columns, k) && all_finite(rows, columns * k))
            pack_panel(result->panels_.get() + at, rows, k, columns, k);
        else
            good.store(false, std::memory_order_relaxed);
    };
    for_panels(*result, pack, panel_width * k);
    return good.load() ? std::move(result) : nullptr;
}

PackedMatrix PackedMatrix::transposed(const float* weight, i64 n, i64 k, i64 ldw) {
    PackedMatrix result(k, n, 1);
    for_panels(result, [&](i64 at, i64 first, i64 columns, float*) {
        copy_panel(result.panels_.get() + at, weight + first, ldw, columns, n);
    });
    return result;
}

PackedMatrix PackedMatrix::transposed() const {
    const std::unique_ptr<float[], Free> weight(allocate(n_ * k_));
    unpack(weight.get());
    return transposed(weight.get(), n_, k_, k_);
}

void PackedMatrix::unpack(float* weight) const {
    for_panels(*this, [&](i64 at, i64 first, i64 columns, float*) {
        const float* panel = panels_.get() + at;
        for (i64 c = 0; c < columns; ++c)
            for (i64 i = 0; i < k_; ++i) weight[(first + c) * k_ + i] = panel[i * panel_width + c];
    });
}

}  // namespace fastattn
