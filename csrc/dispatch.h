// One table of kernels per instruction set, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace fastattn {

struct KernelTable {
#define FASTATTN_KERNEL(name, Args) void (*name)(const Args&);
#include "kernels.inc"
#undef FASTATTN_KERNEL
    double (*fma_burst)(i64 rounds);  // FMAs from registers, for measuring the peak; returns the operations done
};

const KernelTable& kernels() noexcept;             // the table in use
std::vector<const KernelTable*> kernel_tables();   // all that this build has
std::vector<std::string> available_isas();         // the sets that build and processor both support, worst first
std::string isa();                                 // the name of the one in use
std::string isa_reason();                          // why it is in use
void use_isa(const std::string& name);             // std::invalid_argument names the available sets
void choose_isa_from_environment();                // FASTATTN_ISA, or the best there is
std::string cpu_name(const std::string& cpuinfo);  // from /proc/cpuinfo; empty if it has none

}  // namespace fastattn
