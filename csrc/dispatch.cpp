#include "dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace fastattn {

// One row per instruction set, worst first. CMakeLists.txt defines FASTATTN_HAS_* for the sets that it compiles.
#define FASTATTN_ISAS(ROW) \
    FASTATTN_ISA_GENERIC(ROW) FASTATTN_ISA_AVX2(ROW) FASTATTN_ISA_AVX512(ROW) FASTATTN_ISA_NEON(ROW)
#define FASTATTN_ISA_GENERIC(ROW) ROW(generic, true)
#ifdef FASTATTN_HAS_avx2
#define FASTATTN_ISA_AVX2(ROW) ROW(avx2, has_x86_64_v3())
#else
#define FASTATTN_ISA_AVX2(ROW)
#endif
#ifdef FASTATTN_HAS_avx512
#define FASTATTN_ISA_AVX512(ROW) ROW(avx512, has_x86_64_v4())
#else
#define FASTATTN_ISA_AVX512(ROW)
#endif
#ifdef FASTATTN_HAS_neon
#define FASTATTN_ISA_NEON(ROW) ROW(neon, true)  // part of every aarch64
#else
#define FASTATTN_ISA_NEON(ROW)
#endif

#define FASTATTN_DECLARE(name, supported) \
    namespace name {                      \
    extern const KernelTable table;       \
    }
FASTATTN_ISAS(FASTATTN_DECLARE)

namespace {

// The levels that CMakeLists.txt compiles for, with every feature that the compiler may use.
#if defined(__x86_64__) && (defined(__clang__) ? __clang_major__ >= 18 : __GNUC__ >= 12)
bool has_x86_64_v3() { return __builtin_cpu_supports("x86-64-v3"); }
bool has_x86_64_v4() { return __builtin_cpu_supports("x86-64-v4"); }
#elif defined(__x86_64__)
bool has_x86_64_v3() {
    unsigned a, b, c, d, extended;
    const bool known = __get_cpuid(0x80000001, &a, &b, &extended, &d) && __get_cpuid(1, &a, &b, &c, &d);
    return known && (extended & bit_LZCNT) && (c & bit_MOVBE) && (c & bit_F16C) && __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("popcnt");
}
bool has_x86_64_v4() {
    return has_x86_64_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512cd");
}
#endif

struct Isa {
    const char* name;
    const KernelTable* table;
    bool (*supported)();
};

#define FASTATTN_ROW(name, supported) {#name, &name::table, []() -> bool { return supported; }},
const Isa isas[] = {FASTATTN_ISAS(FASTATTN_ROW)};

std::atomic<const Isa*> current{&isas[0]};
std::atomic<const char*> reason{nullptr};  // null: use_isa

}  // namespace

const KernelTable& kernels() noexcept { return *current.load(std::memory_order_relaxed)->table; }

std::vector<const KernelTable*> kernel_tables() {
    std::vector<const KernelTable*> tables;
    for (const Isa& isa : isas) tables.push_back(isa.table);
    return tables;
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Isa& isa : isas)
        if (isa.supported()) names.emplace_back(isa.name);
    return names;
}

std::string isa() { return current.load()->name; }
std::string isa_reason() {
    const char* const why = reason;
    return why ? why : "use_isa(\"" + isa() + "\")";
}

namespace {

void force(const std::string& name, const std::string& who) {
    std::string names;
    for (const Isa& isa : isas) {
        if (!isa.supported()) continue;
        if (name == isa.name) {
            current = &isa;
            return;
        }
        names += (names.empty() ? "" : ", ") + std::string(isa.name);
    }
    throw std::invalid_argument(who + " must be one of " + names + " on this machine, got '" + name + "'");
}

}  // namespace

void use_isa(const std::string& name) {
    force(name, "use_isa: name");
    reason = nullptr;
}

void choose_isa_from_environment() {
    if (const char* name = std::getenv("FASTATTN_ISA"); name && *name) {
        force(name, "FASTATTN_ISA");
        reason = "FASTATTN_ISA";
        return;
    }
    for (const Isa& isa : isas)
        if (isa.supported()) current = &isa;
    reason = "the best of this build that the processor has";
}

std::string cpu_name(const std::string& cpuinfo) {
    std::ifstream file(cpuinfo);
    for (std::string line; std::getline(file, line);) {
        if (line.rfind("model name", 0) != 0) continue;
        const std::size_t begin = line.find_first_not_of(": \t", line.find(':'));
        if (begin != std::string::npos) return line.substr(begin);
    }
    return "";
}

}  // namespace fastattn
