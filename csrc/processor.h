// Instructions that some processors of an instruction set have and others do not. They change speed, never results.
#pragma once

namespace fastattn {

enum class DotProduct { none, avx512_vnni, neon_dotprod };  // of bytes, added to int32

bool has_dot_product(DotProduct kind) noexcept;  // and it may be used
void allow_dot_product(bool allowed);            // for tests: both ways give the same integers

}  // namespace fastattn
