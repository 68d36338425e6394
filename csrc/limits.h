// How many processors this process may really use.
#pragma once

#include <string>

namespace fastattn {

struct Limit {
    int threads;
    std::string reason;
};

// The least of: physical cores, the affinity mask, the control group's quota (v1 or v2).
Limit processor_limit();

}  // namespace fastattn
