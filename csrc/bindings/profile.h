// How every kernel is called, and what is written down of the call while somebody profiles: FASTATTN_PROFILE, or
// fastattn.profile().
#pragma once

#include <functional>

#include "../workers.h"
#include "work.h"

namespace fastattn::bindings {

using KernelCall = void (*)(AnyKernel kernel, const void* args);

template <typename Args>
void call_kernel(AnyKernel kernel, const void* args) {
    reinterpret_cast<void (*)(const Args&)>(kernel)(*static_cast<const Args*>(args));
}

// Calls f() so that no profile takes note of it.
void unprofiled(const std::function<void()>& f);

void run_profiled(KernelCall call, AnyKernel kernel, const void* args);

inline void run_kernel(KernelCall call, AnyKernel kernel, const void* args) {
    if (__builtin_expect(profiling.load(std::memory_order_relaxed), false)) return run_profiled(call, kernel, args);
    call(kernel, args);
}

}  // namespace fastattn::bindings
