// How many processors this process may really use.
#pragma once

#include <string>

namespace fastattn {

struct Limit {
    int threads;
    const char* reason;
};

// The smallest of: physical cores, the affinity mask, the control group's quota (v1 or v2).
Limit processor_limit();

// The processors that the tightest quota grants, from the process's own group up to the root; 0 without a quota.
// `files` stands before /proc and /sys.
double cpu_quota(const std::string& files);

}  // namespace fastattn
