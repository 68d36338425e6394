# Compiles with zig ($ZIG, from `pip install ziglang`) for $ZIG_TARGET, such as x86_64-linux-gnu.2.28: an old C library,
# or another system's. The C++ library is linked in.
string(REGEX MATCH "^[^-]+" processor "$ENV{ZIG_TARGET}")
if("$ENV{ZIG_TARGET}" MATCHES "macos")
  set(CMAKE_SYSTEM_NAME Darwin)
  set(CMAKE_SYSTEM_PROCESSOR arm64)
  set(CMAKE_INSTALL_NAME_TOOL true)  # a build that is only checked has no names to change
elseif(NOT processor STREQUAL CMAKE_HOST_SYSTEM_PROCESSOR)
  set(CMAKE_SYSTEM_NAME Linux)
  set(CMAKE_SYSTEM_PROCESSOR ${processor})
endif()
if(DEFINED ENV{ZIG_MODULE_SUFFIX})  # in the cache, pybind11 would replace it for the second Python
  set(PYTHON_MODULE_EXTENSION $ENV{ZIG_MODULE_SUFFIX})
endif()
set(CMAKE_CXX_COMPILER $ENV{ZIG} c++ -target $ENV{ZIG_TARGET})
set(FASTATTN_ZIG ON)
set(CMAKE_DISABLE_PRECOMPILE_HEADERS ON)
set(CMAKE_DISABLE_FIND_PACKAGE_OpenMP ON)
foreach(flag THIN AUTO)  # pybind11 would try them, and zig compile its C++ library once more
  set(HAS_FLTO_${flag} OFF CACHE INTERNAL "")
endforeach()
set(HAS_FLTO OFF CACHE INTERNAL "")
