#include "packing.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "kernels/panel.h"
#include "parallel.h"

namespace fastattn {
namespace {

constexpr i64 huge_page = 1 << 21;
constexpr i64 worth_keeping = 1 << 18;

struct Job {
    const float* weight;
    float* panels;
    float* unpacked;
    i64 n, k, ldw, groups;

    // The panel'th panel: `columns` rows of W from row `first` on.
    void locate(i64 panel, i64& first, i64& columns) const {
        const i64 of_group = n / groups, unit = panel / groups * panel_width;
        first = panel % groups * of_group + unit;
        columns = of_group - unit < panel_width ? of_group - unit : panel_width;
    }
};

void pack_range(void* context, i64 begin, i64 end, void*) {
    const Job& job = *static_cast<Job*>(context);
    for (i64 p = begin; p < end; ++p) {
        i64 first, columns;
        job.locate(p, first, columns);
        pack_panel(job.panels + p * panel_width * job.k, job.weight + first * job.ldw, job.ldw, columns, job.k);
    }
}

void pack_transposed_range(void* context, i64 begin, i64 end, void*) {
    const Job& job = *static_cast<Job*>(context);
    for (i64 p = begin; p < end; ++p) {
        i64 first, columns;
        job.locate(p, first, columns);
        copy_panel(job.panels + p * panel_width * job.k, job.weight + first, job.ldw, columns, job.k);
    }
}

void unpack_range(void* context, i64 begin, i64 end, void*) {
    const Job& job = *static_cast<Job*>(context);
    for (i64 p = begin; p < end; ++p) {
        i64 first, columns;
        job.locate(p, first, columns);
        const float* panel = job.panels + p * panel_width * job.k;
        for (i64 c = 0; c < columns; ++c)
            for (i64 i = 0; i < job.k; ++i) job.unpacked[(first + c) * job.k + i] = panel[i * panel_width + c];
    }
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
    // A weight is read from end to end on every call: fewer pages, fewer misses. Only whole huge pages, so that
    // the advice costs no memory.
    if (large) madvise(memory, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return {static_cast<float*>(memory), Free{}};
}

PackedMatrix::PackedMatrix(i64 n, i64 k, i64 groups) : n_(n), k_(k), groups_(groups), panels_(allocate(floats())) {}

PackedMatrix::PackedMatrix(const float* weight, i64 n, i64 k, i64 ldw, i64 groups) : PackedMatrix(n, k, groups) {
    Job job{weight, panels_.get(), nullptr, n, k, ldw, groups};
    parallel_for(groups * panels_of_group(), 4, pack_range, &job);
}

PackedMatrix PackedMatrix::transposed(const float* weight, i64 n, i64 k, i64 ldw) {
    PackedMatrix result(k, n, 1);
    Job job{weight, result.panels_.get(), nullptr, k, n, ldw, 1};
    parallel_for(result.panels_of_group(), 4, pack_transposed_range, &job);
    return result;
}

PackedMatrix PackedMatrix::transposed() const {
    const std::unique_ptr<float[], Free> weight(allocate(n_ * k_));
    unpack(weight.get());
    return transposed(weight.get(), n_, k_, k_);
}

void PackedMatrix::unpack(float* weight) const {
    Job job{nullptr, panels_.get(), weight, n_, k_, 0, groups_};
    parallel_for(groups_ * panels_of_group(), 4, unpack_range, &job);
}

}  // namespace fastattn
