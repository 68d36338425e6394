// How many processors this process may really use.
#pragma once

namespace fastattn {

struct Limit {
    int threads;
    const char* reason;
};

// The smallest of: physical cores, the affinity mask, the control group's quota (v1 or v2).
Limit processor_limit();

}  // namespace fastattn
