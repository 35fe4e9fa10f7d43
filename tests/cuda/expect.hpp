// What the checks of the emulator report with.
#pragma once

#include <cstdio>
#include <string>

namespace fusedrnn::checks {

inline int failures = 0;

inline void expect(bool right, const std::string& what, const char* detail = "") {
  if (right) return;
  std::printf("FAILED: %s%s\n", what.c_str(), detail);
  ++failures;
}

}  // namespace fusedrnn::checks
