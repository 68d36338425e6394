// What a call has to do, told by its arguments. The times are in profile.cpp.
#pragma once

#include "../dispatch.h"

namespace fastattn::bindings {

using AnyKernel = void (*)();

struct Work {
    struct Axis {
        const char* name;
        i64 size;  // or flag: the call has what the name says
        bool operator==(const Axis& other) const { return name == other.name && size == other.size; }
    };
    static constexpr i64 flag = -1;

    const char* kernel = "";  // its name in kernels.inc
    Axis axes[10] = {};       // calls with the same axes are one row of the table; an axis without a name is none
    double flops = 0;         // of the products: 0 if the kernel is bound by memory
    double bytes = 0;         // of weights, inputs and outputs, each once
};

// Of a kernel in any table, before it is called.
Work work_of(AnyKernel kernel, const void* args);

}  // namespace fastattn::bindings
