#include "dispatch.h"

#include "processor.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace fastattn {

// One row per instruction set, worst first. CMakeLists.txt defines FASTATTN_HAS_* for the sets that it compiles.
#define FASTATTN_ISAS(ROW)            \
    FASTATTN_ISA_GENERIC(ROW)         \
    FASTATTN_ISA_AVX512_EMULATED(ROW) \
    FASTATTN_ISA_AVX2(ROW) FASTATTN_ISA_AVX512(ROW) FASTATTN_ISA_NEON(ROW)
#define FASTATTN_ISA_GENERIC(ROW) ROW(generic, true)
#ifdef FASTATTN_HAS_avx512_emulated
#define FASTATTN_ISA_AVX512_EMULATED(ROW) ROW(avx512_emulated, has_x86_64_v3())
#else
#define FASTATTN_ISA_AVX512_EMULATED(ROW)
#endif
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

#if defined(__x86_64__)
// The processor is asked itself: the runtime library that zig links answers no to every __builtin_cpu_supports.
struct Cpuid {
    unsigned a = 0, b = 0, c = 0, d = 0;
    explicit Cpuid(unsigned leaf) { __get_cpuid_count(leaf, 0, &a, &b, &c, &d); }
};

constexpr bool all(unsigned wanted, unsigned there) { return (wanted & ~there) == 0; }

// Whether the system keeps these registers (Intel's manual, volume 1, 13.3) when it switches threads.
bool system_keeps(unsigned wanted) {
    if (!(Cpuid(1).c & bit_OSXSAVE)) return false;
    unsigned low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return all(wanted, low);
}

// The levels that CMakeLists.txt compiles for, with every feature that the compiler may use.
[[maybe_unused]] bool has_x86_64_v3() {
    return all(bit_SSE3 | bit_SSSE3 | bit_SSE4_1 | bit_SSE4_2 | bit_CMPXCHG16B | bit_POPCNT, Cpuid(1).c) &&
           all(bit_AVX | bit_F16C | bit_FMA | bit_MOVBE, Cpuid(1).c) &&
           all(bit_AVX2 | bit_BMI | bit_BMI2, Cpuid(7).b) && all(bit_LAHF_LM | bit_LZCNT, Cpuid(0x80000001).c) &&
           system_keeps(0x6);
}
[[maybe_unused]] bool has_x86_64_v4() {
    return has_x86_64_v3() &&
           all(bit_AVX512F | bit_AVX512BW | bit_AVX512CD | bit_AVX512DQ | bit_AVX512VL, Cpuid(7).b) &&
           system_keeps(0xe6);
}
#endif

bool processor_has(DotProduct kind) {
#if defined(__x86_64__)
    constexpr unsigned vnni = 1u << 11;
    return kind == DotProduct::avx512_vnni && has_x86_64_v4() && all(vnni, Cpuid(7).c);
#elif defined(__aarch64__) && defined(__linux__)
    constexpr unsigned long asimddp = 1ul << 20;
    return kind == DotProduct::neon_dotprod && (getauxval(AT_HWCAP) & asimddp);
#elif defined(__aarch64__)
    return kind == DotProduct::neon_dotprod;  // Apple's, all of them
#else
    return kind != kind;  // none
#endif
}

std::atomic<bool> dot_product_allowed{true};

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

bool has_dot_product(DotProduct kind) noexcept {
    static const bool there[] = {false, processor_has(DotProduct::avx512_vnni),
                                 processor_has(DotProduct::neon_dotprod)};
    return there[static_cast<int>(kind)] && dot_product_allowed.load(std::memory_order_relaxed);
}

void allow_dot_product(bool allowed) { dot_product_allowed = allowed; }

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
