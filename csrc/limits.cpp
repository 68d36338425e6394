#include "limits.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif
#ifdef __APPLE__
#include <sys/sysctl.h>
#endif

namespace fastattn {
namespace {

#ifdef __linux__

struct Affinity {
    int logical = 0;  // processors in the mask
    int cores = 0;    // physical cores they belong to: a second hardware thread adds nothing to a GEMM
};

Affinity affinity() {
    Affinity result;
    std::set<std::string> siblings;
    for (int capacity = 1024; capacity <= 1 << 20; capacity *= 2) {
        cpu_set_t* set = CPU_ALLOC(capacity);
        const std::size_t size = CPU_ALLOC_SIZE(capacity);
        const bool known = sched_getaffinity(0, size, set) == 0;
        for (int cpu = 0; known && cpu < capacity; ++cpu) {
            if (!CPU_ISSET_S(cpu, size, set)) continue;
            ++result.logical;
            std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
            std::string line;
            siblings.insert(std::getline(file, line) ? line : std::to_string(cpu));
        }
        CPU_FREE(set);
        if (known) break;
    }
    result.cores = static_cast<int>(siblings.size());
    return result;
}

double read_quota_v2(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && period > 0) return std::strtod(quota.c_str(), nullptr) / period;  // 0 for "max"
    return 0;
}

double read_quota_v1(const std::string& folder) {
    double quota = 0, period = 0;
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
    return quota > 0 && period > 0 ? quota / period : 0;
}

#endif

}  // namespace

#ifdef __linux__

double cpu_quota(const std::string& files) {
    double least = 0;
    std::ifstream groups(files + "/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
        // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
        std::istringstream fields(line);
        std::string id, controllers, path;
        std::getline(fields, id, ':');
        std::getline(fields, controllers, ':');
        std::getline(fields, path);
        const bool v2 = controllers.empty();
        if (!v2 && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
        const std::string root = files + (v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controllers);
        // Inside a container the path may name a folder of the host; the walk up to the root still ends at our group.
        for (;; path.erase(path.find_last_of('/'))) {
            const double found = v2 ? read_quota_v2(root + path) : read_quota_v1(root + path);
            if (found > 0 && (least == 0 || found < least)) least = found;
            if (path.find('/') == std::string::npos) break;
        }
    }
    return least;
}

#else

double cpu_quota(const std::string&) { return 0; }

#endif

Limit processor_limit() {
#ifdef __linux__
    const Affinity mask = affinity();
    const int online = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    Limit limit{std::max(1, mask.cores), mask.logical < online ? "processor affinity" : "physical cores"};
    if (const double granted = cpu_quota(""); granted > 0) {
        const int whole = std::max(1, static_cast<int>(std::ceil(std::min(granted, 1e6))));
        if (whole < limit.threads) limit = {whole, "control group quota"};
    }
    return limit;
#elif defined(__APPLE__)
    int cores = 0;
    std::size_t size = sizeof cores;
    // The performance cores: a loop shared with an efficiency core waits for it.
    if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) == 0 && cores > 0)
        return {cores, "performance cores"};
    return {std::max(1, static_cast<int>(std::thread::hardware_concurrency())), "cores"};
#else
    return {std::max(1, static_cast<int>(std::thread::hardware_concurrency())), "cores"};
#endif
}

}  // namespace fastattn
