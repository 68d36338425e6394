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

i64 panels_of(const PackedMatrix& w) { return w.k() == 0 ? 0 : w.groups() * w.panels_of_group(); }

// f(at, first, columns) for the panel p: it starts at the float `at` and holds `columns` rows of W, starting with row
// `first`.
template <typename F>
void for_panel(const PackedMatrix& w, i64 p, const F& f) {
    const i64 of_group = w.n() / w.groups(), unit = p / w.groups() * panel_width;
    f(p * panel_width * w.k(), p % w.groups() * of_group + unit, std::min(of_group - unit, panel_width));
}

// The same for every panel, by several threads.
template <typename F>
void for_panels(const PackedMatrix& w, const F& f) {
    parallel_for(panels_of(w), 4, [&](i64 begin, i64 end, float*) {
        for (i64 p = begin; p < end; ++p) for_panel(w, p, f);
    });
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

// Makes the pages of a part at once, which costs less than one by one, by the thread that fills them next.
void make_pages([[maybe_unused]] float* part, [[maybe_unused]] i64 floats) {
#ifdef MADV_POPULATE_WRITE
    char* const begin = reinterpret_cast<char*>(part);
    char* const first = begin - reinterpret_cast<std::uintptr_t>(begin) % page;
    madvise(first, static_cast<std::size_t>(reinterpret_cast<char*>(part + floats) - first), MADV_POPULATE_WRITE);
#endif
}

}  // namespace

// Pages of the system's for weights that stay: after they are freed, malloc would keep the memory between its other
// blocks.
class Pages {
public:
    // `data` is null if there are none.
    explicit Pages(std::size_t bytes) : bytes_((bytes + page - 1) / page * page) {
#ifdef __SANITIZE_ADDRESS__
        return;  // malloc's blocks have guards around them
#endif
        const std::size_t align = bytes >= huge_page ? huge_page : 0;
        void* const got = mmap(nullptr, bytes_ + align, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (got == MAP_FAILED) return;
        char* const first = static_cast<char*>(got);
        const std::size_t before = align ? (align - reinterpret_cast<std::uintptr_t>(first) % align) % align : 0;
        if (before) munmap(first, before);
        if (align > before) munmap(first + before + bytes_, align - before);
        data_ = first + before;
#ifdef MADV_HUGEPAGE
        if (align) madvise(data_, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    }
    ~Pages() {
        if (data_) munmap(data_, bytes_);
    }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    char* data() const { return data_; }

private:
    char* data_ = nullptr;
    const std::size_t bytes_;
};

void PackedMatrix::Free::operator()(float* p) const {
    if (block.data)
        give_memory(block);
    else if (!pages)
        std::free(p);
    else if (pages.use_count() > 1)
        madvise(p, block.bytes, MADV_DONTNEED);  // the others stay
}

std::unique_ptr<float[], PackedMatrix::Free> PackedMatrix::allocate(i64 floats) {
    const std::size_t bytes = static_cast<std::size_t>(floats > 0 ? floats : 1) * sizeof(float);
    const bool large = bytes >= huge_page;
    if (bytes >= worth_keeping && keeps_memory()) {
        const Block block = take_memory(bytes);
        return {static_cast<float*>(block.data), Free{block, nullptr}};
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

PackedMatrix::PackedMatrix(i64 n, i64 k, i64 groups, Element element)
    : n_(n), k_(k), groups_(groups), element_(element), panels_(allocate(floats())) {}

PackedMatrix::PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw, i64 groups) : PackedMatrix(n, k, groups) {
    for_panels(*this, [&](i64 at, i64 first, i64 columns) {
        pack_panel(panels_.get() + at, weight + first * ldw, ldw, columns, k);
    });
}

std::vector<std::unique_ptr<PackedMatrix>> PackedMatrix::read(const std::vector<StoredMatrix>& matrices) {
    std::vector<std::unique_ptr<PackedMatrix>> results;
    std::vector<i64> ends;  // of the panels of each
    std::size_t shared = 0;
    i64 widest = 0, count = 0;
    for (const StoredMatrix& each : matrices) {
        PackedMatrix& w = *results.emplace_back(new PackedMatrix(0, each.k, each.groups));
        for (const StoredRows& piece : each.pieces) w.n_ += piece.rows;
        if (w.bytes_of_panels() >= worth_keeping) shared += (w.bytes_of_panels() + page - 1) / page * page;
        ends.push_back(count += panels_of(w));
        widest = std::max(widest, w.k());
    }
    const auto pages = shared ? std::make_shared<Pages>(shared) : nullptr;
    shared = 0;
    for (const std::unique_ptr<PackedMatrix>& w : results) {
        if (w->bytes_of_panels() < worth_keeping || !pages->data()) {
            w->panels_ = allocate(w->floats());
            continue;
        }
        const std::size_t whole = (w->bytes_of_panels() + page - 1) / page * page;
        w->panels_ = {reinterpret_cast<float*>(pages->data() + shared), Free{Block{nullptr, whole}, pages}};
        shared += whole;
    }
    std::vector<std::atomic<bool>> bad(matrices.size());
    const auto pack = [&](i64 begin, i64 end, float* rows) {
        for (i64 last; begin < end; begin = last) {  // the panels of each matrix
            const std::size_t i =
                static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
            const PackedMatrix& w = *results[i];
            const i64 before = i ? ends[i - 1] : 0, panel = panel_width * w.k();
            last = std::min(end, ends[i]);
            if (w.panels_.get_deleter().pages)
                make_pages(w.panels_.get() + (begin - before) * panel, (last - begin) * panel);
            for (i64 p = begin; p < last && !bad[i].load(std::memory_order_relaxed); ++p)
                for_panel(w, p - before, [&](i64 at, i64 first, i64 columns) {
                    if (read_rows(matrices[i].pieces, rows, first, columns, w.k()) && all_finite(rows, columns * w.k()))
                        pack_panel(w.panels_.get() + at, rows, w.k(), columns, w.k());
                    else
                        bad[i].store(true, std::memory_order_relaxed);
                });
        }
    };
    parallel_for(count, 4, pack, panel_width * widest);
    for (std::size_t i = 0; i < results.size(); ++i)
        if (bad[i].load()) results[i].reset();
    return results;
}

PackedMatrix PackedMatrix::transposed(const float* weight, i64 n, i64 k, i64 ldw) {
    PackedMatrix result(k, n, 1);
    for_panels(result, [&](i64 at, i64 first, i64 columns) {
        copy_panel(result.panels_.get() + at, weight + first, ldw, columns, n);
    });
    return result;
}

PackedMatrix PackedMatrix::transposed() const {
    const std::unique_ptr<float[], Free> weight(allocate(n_ * k_));
    unpack(weight.get());
    return transposed(weight.get(), n_, k_, k_);
}

WeightView PackedMatrix::view() const {
    WeightView view{panels(), nullptr, 0};
    view.element = element_;
    view.scales = scales_.data();
    view.sums = sums_.data();
    view.input_scales = input_scales_.empty() ? nullptr : input_scales_.data();
    return view;
}

i64 PackedMatrix::nbytes() const {
    return (floats() + static_cast<i64>(scales_.size() + sums_.size() + input_scales_.size())) * i64{sizeof(float)};
}

void PackedMatrix::unpack(float* weight) const {
    if (element_ != Element::float32) return unpack_reduced(weight);
    for_panels(*this, [&](i64 at, i64 first, i64 columns) {
        const float* panel = panels_.get() + at;
        for (i64 c = 0; c < columns; ++c)
            for (i64 i = 0; i < k_; ++i) weight[(first + c) * k_ + i] = panel[i * panel_width + c];
    });
}

}  // namespace fastattn
