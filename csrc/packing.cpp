#include "packing.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "kernels/panel.h"
#include "parallel.h"

namespace fastattn {
namespace {

constexpr i64 huge_page = 1 << 21;

float* allocate(i64 floats) {
    const std::size_t bytes = static_cast<std::size_t>(floats > 0 ? floats : 1) * sizeof(float);
    const bool large = bytes >= huge_page;
    void* memory = nullptr;
    if (posix_memalign(&memory, large ? huge_page : 64, bytes) != 0) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    // A weight is read from end to end on every call: fewer pages, fewer misses. Only whole huge pages, so that
    // the advice costs no memory.
    if (large) madvise(memory, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return static_cast<float*>(memory);
}

struct Job {
    const float* weight;
    float* panels;
    float* unpacked;
    i64 n, k, ldw;
};

void pack_range(void* context, i64 begin, i64 end, void*) {
    const Job& job = *static_cast<Job*>(context);
    for (i64 p = begin; p < end; ++p) {
        const i64 first = p * panel_width;
        const i64 columns = job.n - first < panel_width ? job.n - first : panel_width;
        pack_panel(job.panels + first * job.k, job.weight + first * job.ldw, job.ldw, columns, job.k);
    }
}

void unpack_range(void* context, i64 begin, i64 end, void*) {
    const Job& job = *static_cast<Job*>(context);
    for (i64 row = begin; row < end; ++row) {
        const float* panel = job.panels + row / panel_width * panel_width * job.k + row % panel_width;
        for (i64 i = 0; i < job.k; ++i) job.unpacked[row * job.k + i] = panel[i * panel_width];
    }
}

}  // namespace

void PackedMatrix::Free::operator()(float* p) const { std::free(p); }

PackedMatrix::PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw) : n_(n), k_(k), panels_(allocate(floats())) {
    Job job{weight, panels_.get(), nullptr, n, k, ldw};
    parallel_for((n + panel_width - 1) / panel_width, 4, pack_range, &job);
}

void PackedMatrix::unpack(float* weight) const {
    Job job{nullptr, panels_.get(), weight, n_, k_, 0};
    parallel_for(n_, 64, unpack_range, &job);
}

}  // namespace fastattn
