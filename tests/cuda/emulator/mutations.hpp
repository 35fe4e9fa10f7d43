// Mutation tests: plants every fault that a kernel's call sites allow, one at a time, and tells which went unnoticed.
#pragma once

#include "emulator.hpp"

namespace fusedrnn::emulator {

// `right` launches the kernel and says whether its results are right. Each fault that it survives on any of the seeds
// 1 to `seeds` is named. `planted` counts the faults.
template <class Right>
std::vector<std::string> survivors(Right right, int seeds, int* planted = nullptr) {
  const Settings before = settings;
  const auto survives = [&] {
    try {
      return bool(right());
    } catch (const Error&) {
      return false;
    }
  };
  statistics = {};
  if (!survives()) return {"the kernel fails without a fault"};
  const std::map<Site, long> sites = statistics.sites;
  std::vector<std::string> out;
  for (const auto& [site, calls] : sites)
    for (const Change change : changes(site.kind)) {
      if (planted) ++*planted;
      settings.faults = {{site, change}};
      for (int seed = 1; seed <= seeds; ++seed) {
        settings.seed = uint64_t(seed);
        if (survives())
          out.push_back(name(site) + (change == Change::drop ? " dropped" : " relaxed") + ", seed " +
                        std::to_string(seed));
      }
      settings = before;
    }
  return out;
}

}  // namespace fusedrnn::emulator
