#include "packing.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "kernels/panel.h"
#include "parallel.h"

namespace fastattn {
namespace {

constexpr i64 huge_page = 1 << 21;
constexpr i64 worth_keeping = 1 << 18;

// f(at, first, columns) for every panel, by several threads: it starts at the float `at` and holds `columns` rows of W,
// starting with row `first`.
template <typename F>
void for_panels(const PackedMatrix& w, const F& f) {
    if (w.k() == 0) return;
    const i64 of_group = w.n() / w.groups();
    parallel_for(w.groups() * w.panels_of_group(), 4, [&](i64 begin, i64 end, float*) {
        for (i64 p = begin; p < end; ++p) {
            const i64 unit = p / w.groups() * panel_width;
            f(p * panel_width * w.k(), p % w.groups() * of_group + unit, std::min(of_group - unit, panel_width));
        }
    });
}

}  // namespace

void PackedMatrix::Free::operator()(float* p) const {
    if (block.bytes)
        give_memory(block);
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
    for_panels(*this, [&](i64 at, i64 first, i64 columns) {
        pack_panel(panels_.get() + at, weight + first * ldw, ldw, columns, k);
    });
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

void PackedMatrix::unpack(float* weight) const {
    for_panels(*this, [&](i64 at, i64 first, i64 columns) {
        const float* panel = panels_.get() + at;
        for (i64 c = 0; c < columns; ++c)
            for (i64 i = 0; i < k_; ++i) weight[(first + c) * k_ + i] = panel[i * panel_width + c];
    });
}

}  // namespace fastattn
