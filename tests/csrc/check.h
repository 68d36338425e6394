// What the test programs count and print.
#pragma once

#include <atomic>
#include <cstdio>

inline std::atomic<int> failures{0};
#define CHECK(condition, ...)                              \
    do {                                                   \
        if (!(condition)) {                                \
            ++failures;                                    \
            std::printf("%d: %s: ", __LINE__, #condition); \
            std::printf(__VA_ARGS__);                      \
            std::printf("\n");                             \
        }                                                  \
    } while (false)
